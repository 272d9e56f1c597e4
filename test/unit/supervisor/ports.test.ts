import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { describe, expect, test } from 'vitest'
import { describePortHolder, findPortHolders, portsInUse } from '../../../src/supervisor/ports.ts'
import { fixture } from './support.ts'

describe('the holder of a port', () => {
  test.each(['127.0.0.1', '0.0.0.0', '::1', '::', '::ffff:127.0.0.1'])('on %s', async (host) => {
    const server = createServer().listen({ host, port: 0 })
    await once(server, 'listening')
    const { port, address } = server.address() as AddressInfo
    const command = expect.stringContaining('node')
    try {
      const holders = await findPortHolders([port])
      const shown = address === '::ffff:127.0.0.1' ? '::ffff:7f00:1' : address
      expect(holders).toEqual([
        { port, address: shown, userId: process.getuid?.(), pid: process.pid, command },
      ])
    } finally {
      server.close()
    }
  })

  test('is another process, with its command', async () => {
    const child = spawn(process.execPath, [fixture('listen.ts'), '0'])
    try {
      const port = Number(String((await once(child.stdout, 'data'))[0]))
      const [holder, ...more] = await findPortHolders([port])
      expect(more).toEqual([])
      expect(describePortHolder(holder!)).toBe(
        `port ${port} is held by process ${child.pid} (${process.execPath} ${fixture('listen.ts')} 0)`,
      )
    } finally {
      child.kill('SIGKILL')
    }
  })

  test('of a port that is free: nobody', async () => {
    const server = createServer().listen(0)
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    server.close()
    await once(server, 'close')
    expect(await findPortHolders([port])).toEqual([])
  })
})

test('a holder that cannot be seen is described by its user', () => {
  expect(describePortHolder({ port: 80, address: '::', userId: 33 })).toBe(
    'port 80 is held by a process of user 33 that is not visible here',
  )
})

describe('the port of a message', () => {
  test.each([
    ['listen tcp 0.0.0.0:6443: bind: address already in use', [6443]],
    [
      'E1121 10:00:00.1 1 run.go:74] "command failed" err="failed to listen on [::]:10250: listen tcp [::]:10250: bind: address already in use"',
      [10250],
    ],
    ['Error: listen EADDRINUSE: address already in use :::8080', [8080]],
    ['Error: listen EADDRINUSE: address already in use ::1:8081', [8081]],
    ['listen unix /run/containerd.sock: bind: address already in use', []],
    ['OSError: [Errno 98] Address already in use', []],
    ['listening on 127.0.0.1:6443', []],
  ])('%s', (line, ports) => {
    expect(portsInUse([line])).toEqual(ports)
  })
})
