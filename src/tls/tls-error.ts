/** What is wrong with certificates or keys, as people have to know it: the file, and what to do. Nothing of a key is ever in it. */
export class TlsError extends Error {
  override name = 'TlsError';
}
