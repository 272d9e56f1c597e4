import { expect, test } from 'vitest'
import { ageMs, parseListeners, parseMask, parseStat, readStat } from '../../../src/base/proc.ts'

test('a command may hold blanks and parentheses', () => {
  const text = `7 (a) (b c) S 1 2 3 ${Array.from({ length: 40 }, (_, index) => index).join(' ')}`
  expect(parseStat(text)).toEqual({
    command: 'a) (b c',
    state: 'S',
    parentPid: 1,
    session: 3,
    // utime and stime, the fields 14 and 15.
    processorMs: (7 + 8) * 10,
    startTicks: 15,
  })
})

test('this process has its own', () => {
  const stat = readStat(process.pid)!
  expect(stat).toMatchObject({ parentPid: process.ppid, state: 'R' })
  expect(stat.processorMs).toBeGreaterThan(0)
  expect(ageMs(stat)).toBeGreaterThan(0)
})

test('sockets that accept connections are told from those that are connected', () => {
  const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0000000000000000
   1: 0100007F:1F91 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0000000000000000
`
  expect(parseListeners(table)).toEqual([{ port: 8080, address: '127.0.0.1', userId: 1000, inode: '4711' }])
  expect(parseListeners('')).toEqual([])
})

test('a mask is a set of bits, empty where there is none', () => {
  const status = 'Name:\tnode\nSigIgn:\t0000000000001001\nCapEff:\t000001ffffffffff\n'
  expect(parseMask(status, 'SigIgn')).toBe(0x1001n)
  expect(parseMask(status, 'CapEff')).toBe(0x1ffffffffffn)
  expect(parseMask('', 'CapEff')).toBe(0n)
})
