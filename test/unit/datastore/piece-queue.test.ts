import { expect, test } from 'vitest'
import { PieceQueue } from '../../../src/datastore/grpc/http2/piece-queue.ts'

test('pieces leave in their order, whole or by and by', () => {
  const queue = new PieceQueue()
  queue.push(Buffer.from('one'))
  queue.push(Buffer.from('two'))
  expect(queue).toMatchObject({ isEmpty: false, bytes: 6, costBytes: 6 + 2 * 256 })
  queue.take(1)
  expect(queue.head.toString()).toBe('ne')
  queue.take(2)
  queue.push(Buffer.from('three'))
  expect(queue.head.toString()).toBe('two')
  expect(queue).toMatchObject({ bytes: 8, costBytes: 8 + 2 * 256 })
  queue.take(3)
  queue.take(5)
  expect(queue).toMatchObject({ isEmpty: true, bytes: 0, costBytes: 0 })
  queue.push(Buffer.from('four'))
  queue.clear()
  expect(queue).toMatchObject({ isEmpty: true, bytes: 0, costBytes: 0 })
})

test('a million pieces are no slower than a few', () => {
  const queue = new PieceQueue()
  const pieces = [Buffer.of(0), Buffer.of(1), Buffer.of(2)]
  // Array.shift would move all of them each time, which takes a quarter of an hour.
  for (let at = 0; at < 1_000_000; at++) queue.push(pieces[at % 3] as Buffer)
  for (let at = 0; at < 1_000_000; at++) {
    if (queue.head[0] !== at % 3) expect.fail(`piece ${at} is ${queue.head[0]}`)
    if (at % 3 === 0) queue.push(pieces[(at / 3 + 1) % 3] as Buffer)
    queue.take(1)
  }
  expect(queue.bytes).toBe(333_334)
})
