/** The least and the greatest piece that is kept for the next frame, in bytes. */
export const PIECE_BYTES_MIN = 128 << 10;
const PIECE_BYTES_MAX = 4 << 20;
/** Memory kept while no frame needs it, in bytes. */
const KEPT_BYTES_MAX = 8 << 20;

/**
 * Memory for frames that arrive in pieces, used again. A new buffer for each frame is memory outside of V8's heap, and V8 marks its whole heap
 * after so many bytes of it have come and gone.
 */
export class FrameMemory {
  readonly #free: Buffer[] = [];
  #keptBytes = 0;

  /** At least `length` bytes, with anything in them. */
  take(length: number): Buffer {
    for (let i = this.#free.length - 1; i >= 0; i--) {
      const piece = this.#free[i] as Buffer;
      if (piece.length < length) continue;
      this.#free.splice(i, 1);
      this.#keptBytes -= piece.length;
      return piece;
    }
    return Buffer.allocUnsafeSlow(Math.max(PIECE_BYTES_MIN, length));
  }

  /** Nobody reads it any more. */
  give(piece: Buffer): void {
    if (piece.length > PIECE_BYTES_MAX || this.#keptBytes + piece.length > KEPT_BYTES_MAX) return;
    this.#free.push(piece);
    this.#keptBytes += piece.length;
  }
}
