/**
 * The pieces that large messages are made of. They are used again: the pages of fresh memory would cost more than what is
 * copied into them.
 */
export const pieceBytes = 256 * 1024

/** As many as one congested connection has on their way. */
const keptPieces = 8

const kept: Buffer[] = []

/** A piece with room for `bytes` at least. Its contents are whatever they were. */
export function takePiece(bytes: number): Buffer {
  if (bytes > pieceBytes) return Buffer.allocUnsafeSlow(bytes)
  return kept.pop() ?? Buffer.allocUnsafeSlow(pieceBytes)
}

/** Gives a piece, or what was cut from one, back: nobody may hold it any more. */
export function givePiece({ buffer }: Buffer): void {
  if (buffer.byteLength === pieceBytes && kept.length < keptPieces) kept.push(Buffer.from(buffer))
}
