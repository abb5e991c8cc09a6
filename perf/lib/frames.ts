/** The requests of the generators, written into one buffer without making objects. Field numbers are those of proto/broker.proto. */

/** What each call of a load sends. Calls are numbered from 0; `subjects` are used in turn. */
export type Frames =
  | { readonly kind: 'publish'; readonly subjects: number; readonly prefix: string; readonly bodyBytes: number }
  | {
      readonly kind: 'fetch';
      readonly subjects: number;
      readonly prefix: string;
      /** Ids 1 to this are asked for at random. */
      readonly idsPerSubject: number;
      readonly seed: number;
    }
  /** etcd's PutRequest: key 1, value 2. */
  | { readonly kind: 'put'; readonly keys: number; readonly valueBytes: number };

export interface FrameWriter {
  readonly scratch: Buffer;
  /** Writes the request of call `number` to the start of `scratch`; returns its length. */
  write(number: number): number;
}

export function subjectName(prefix: string, index: number): string {
  return `${prefix}.${index}`;
}

export function frameWriter(frames: Frames): FrameWriter {
  switch (frames.kind) {
    case 'publish': {
      const subjects = (index: number) => Buffer.from(subjectName(frames.prefix, index));
      return pairWriter(frames.subjects, subjects, randomBody(frames.bodyBytes));
    }
    case 'put':
      return pairWriter(frames.keys, (index) => Buffer.from(`key-${index}`), randomBody(frames.valueBytes));
    case 'fetch':
      return fetchWriter(frames);
  }
}

/** Length of the MessageResponse that carries such a message: what the baseline has to answer. */
export function deliveryBytes(bodyBytes: number, subject: string, id: number): number {
  const body = 1 + varintLength(bodyBytes) + bodyBytes;
  const name = 2 + Buffer.byteLength(subject);
  const time = 1 + varintLength(Date.now());
  return body + 1 + varintLength(id) + name + time;
}

/** Bytes that no compression and no trick makes smaller, the same in every run. */
export function randomBody(length: number): Buffer {
  const body = Buffer.alloc(length);
  let state = 0x9e3779b9;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    body[i] = state >>> 24;
  }
  return body;
}

/** Two length-delimited fields, 1 and 2; only the first differs from call to call. */
function pairWriter(count: number, first: (index: number) => Buffer, second: Buffer): FrameWriter {
  const tail = Buffer.alloc(1 + varintLength(second.length) + second.length);
  tail[0] = 0x12;
  second.copy(tail, writeVarint(tail, 1, second.length));
  const scratch = Buffer.alloc(300 + tail.length);
  // Names of a hundred thousand subjects are made when they are used: kept, they would be the generator's memory.
  const kept = count <= 1_024 ? Array.from({ length: count }, (_, index) => first(index)) : null;
  return {
    scratch,
    write(number) {
      const index = number % count;
      const name = kept === null ? first(index) : (kept[index] as Buffer);
      scratch[0] = 0x0a;
      scratch[1] = name.length;
      name.copy(scratch, 2);
      return 2 + name.length + tail.copy(scratch, 2 + name.length);
    },
  };
}

function fetchWriter(frames: Frames & { kind: 'fetch' }): FrameWriter {
  const names = Array.from({ length: frames.subjects }, (_, index) => Buffer.from(subjectName(frames.prefix, index)));
  const scratch = Buffer.alloc(300);
  let state = frames.seed >>> 0;
  return {
    scratch,
    write(number) {
      const name = names[number % names.length] as Buffer;
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      const id = 1 + Math.floor((state / 0x1_0000_0000) * frames.idsPerSubject);
      scratch[0] = 0x0a;
      scratch[1] = name.length;
      name.copy(scratch, 2);
      scratch[2 + name.length] = 0x10;
      return writeVarint(scratch, 3 + name.length, id);
    },
  };
}

export function writeVarint(target: Buffer, offset: number, value: number): number {
  let at = offset;
  let rest = value;
  while (rest >= 0x80) {
    target[at++] = (rest % 128) | 0x80;
    rest = Math.floor(rest / 128);
  }
  target[at++] = rest;
  return at;
}

function varintLength(value: number): number {
  let length = 1;
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 128)) length += 1;
  return length;
}
