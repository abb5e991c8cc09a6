/**
 * IP addresses as memberlist's messages carry them: 4 or 16 bytes. An IPv4 address may come in 16 bytes (an agent bound to 0.0.0.0 says its own like that,
 * net_transport.go FinalAdvertiseAddr), and upstream compares the bytes: a node whose address is told with 4 by one and with 16 by another is two nodes with
 * one name (state.go aliveNode), over which Serf shuts the smaller side down. So the form is kept in words, `::ffff:10.0.0.1` or `10.0.0.1`, and what was
 * read is written again as it was.
 */

const MAPPED = '::ffff:';

/** Null if there are not 4 or 16 bytes. IPv6 as in RFC 5952. */
export function hostOfBytes(bytes: Uint8Array): string | null {
  if (bytes.length === 4) return bytes.join('.');
  if (bytes.length !== 16) return null;
  const groups = Array.from({ length: 8 }, (_, i) => ((bytes[i * 2] as number) << 8) | (bytes[i * 2 + 1] as number));
  if (groups[5] === 0xffff && groups.slice(0, 5).every((group) => group === 0))
    return MAPPED + bytes.subarray(12).join('.');
  return shorten(groups);
}

/** Null if these are not the words of an address. */
export function bytesOfHost(host: string): Uint8Array | null {
  if (!host.includes(':')) return quad(host);
  const halves = host.split('::');
  if (halves.length > 2) return null;
  const head = groupsOf(halves[0] as string, halves.length === 1);
  const tail = halves.length === 2 ? groupsOf(halves[1] as string, true) : [];
  if (head === null || tail === null) return null;
  const missing = 16 - head.length - tail.length;
  if (halves.length === 2 ? missing < 2 : missing !== 0) return null;
  return Uint8Array.from([...head, ...new Array<number>(missing).fill(0), ...tail]);
}

/** The longest run of two or more zeros, the first of equals, becomes `::`. */
function shorten(groups: readonly number[]): string {
  let [start, length] = [0, 1];
  for (let i = 0; i < groups.length; i++) {
    let end = i;
    while (end < groups.length && groups[end] === 0) end++;
    if (end - i > length) [start, length] = [i, end - i];
    i = Math.max(i, end - 1);
  }
  const words = groups.map((group) => group.toString(16));
  if (length < 2) return words.join(':');
  return `${words.slice(0, start).join(':')}::${words.slice(start + length).join(':')}`;
}

/** Bytes of the groups on one side of `::`; the last side may end like an IPv4 address. */
function groupsOf(text: string, isLast: boolean): number[] | null {
  if (text === '') return [];
  const bytes: number[] = [];
  const words = text.split(':');
  for (const [i, word] of words.entries()) {
    if (isLast && i === words.length - 1 && word.includes('.')) {
      const last = quad(word);
      if (last === null) return null;
      bytes.push(...last);
    } else {
      if (!/^[0-9a-f]{1,4}$/i.test(word)) return null;
      const group = Number.parseInt(word, 16);
      bytes.push(group >> 8, group & 0xff);
    }
  }
  return bytes.length <= 16 ? bytes : null;
}

function quad(text: string): Uint8Array | null {
  const words = text.split('.');
  if (words.length !== 4 || !words.every((word) => /^(0|[1-9]\d{0,2})$/.test(word) && Number(word) <= 255)) return null;
  return Uint8Array.from(words, Number);
}
