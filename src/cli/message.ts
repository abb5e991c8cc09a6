/** Messages as the commands print them. */
import type { Message } from '../client/index.ts';

/**
 * One JSON object: `body` is text if the bytes are UTF-8, else there is `bodyBase64` instead; the same for each header. Headers stay a list,
 * since keys may repeat.
 */
export function messageToJson(message: Message): Record<string, unknown> {
  const headers = message.headers.map(({ key, value }) => ({ key, ...textOrBase64('value', value) }));
  return {
    id: message.id,
    subject: message.subject,
    publishedAt: new Date(message.publishedAt).toISOString(),
    headers,
    ...textOrBase64('body', message.body),
  };
}

function textOrBase64(name: string, bytes: Uint8Array): Record<string, string> {
  const text = asText(bytes);
  return text === null ? { [`${name}Base64`]: Buffer.from(bytes).toString('base64') } : { [name]: text };
}

/** Null if the bytes are not UTF-8: text that was decoded and encoded again must be the same bytes. */
function asText(bytes: Uint8Array): string | null {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    if (error instanceof TypeError) return null;
    throw error;
  }
}
