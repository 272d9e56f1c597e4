import { Http2Error, errorCodes } from './protocol.ts'
import { endOfStringSymbol, huffmanCodeLengths } from './hpack-tables.ts'

/**
 * The code as a binary tree in pairs: nodes[2 * n + bit] is the next node when positive and the
 * symbol -(s + 1) when negative. Node 0 is the root.
 */
const nodes = buildTree()

function buildTree(): Int16Array {
  const tree = new Int16Array(4 * huffmanCodeLengths.length)
  let nodeCount = 1
  let code = 0
  const longest = Math.max(...huffmanCodeLengths)
  for (let length = 1; length <= longest; length++) {
    for (let symbol = 0; symbol < huffmanCodeLengths.length; symbol++) {
      if (huffmanCodeLengths[symbol] !== length) continue
      let node = 0
      for (let bit = length - 1; bit > 0; bit--) {
        const slot = 2 * node + ((code >>> bit) & 1)
        if (tree[slot] === 0) tree[slot] = nodeCount++
        node = tree[slot] as number
      }
      tree[2 * node + (code & 1)] = -(symbol + 1)
      code++
    }
    code *= 2
  }
  return tree
}

/** Decodes a Huffman string (RFC 7541, section 5.2); padding must be fewer than 8 bits, all ones. */
export function decodeHuffman(input: Buffer, start: number, end: number): string {
  let text = ''
  let node = 0
  let bitsOfSymbol = 0
  let onlyOnes = true
  for (let at = start; at < end; at++) {
    const byte = input[at] as number
    for (let shift = 7; shift >= 0; shift--) {
      const bit = (byte >>> shift) & 1
      node = nodes[2 * node + bit] as number
      bitsOfSymbol++
      onlyOnes &&= bit === 1
      if (node >= 0) continue
      const symbol = -node - 1
      if (symbol === endOfStringSymbol) throw malformed()
      text += String.fromCharCode(symbol)
      node = 0
      bitsOfSymbol = 0
      onlyOnes = true
    }
  }
  if (bitsOfSymbol > 7 || !onlyOnes) throw malformed()
  return text
}

function malformed(): Http2Error {
  return new Http2Error(errorCodes.compressionError, 'malformed Huffman string')
}
