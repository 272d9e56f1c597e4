import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { onTestFinished } from 'vitest'

const run = promisify(execFile)
const outputLimit = 64 * 1024 * 1024
const peers = resolve(import.meta.dirname, '../../build/peers')

/** The program that makes and reads files of etcd, as the payload has it. */
export const etcdFileProgram = resolve(import.meta.dirname, '../../build/bin/etcd-file')

export function temporaryDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'k8s-peer-'))
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

export type Etcdctl = (...args: string[]) => Promise<string>

/** etcdctl against one endpoint; returns what it prints. */
export function etcdctl(endpoint: string): Etcdctl {
  return async (...args) => {
    const all = [`--endpoints=${endpoint}`, ...args]
    return (await run(join(peers, 'etcdctl'), all, { maxBuffer: outputLimit })).stdout
  }
}

/** A transaction without conditions, of lines such as `put a 1`. */
export async function transact(endpoint: string, ...operations: string[]): Promise<void> {
  const running = run(join(peers, 'etcdctl'), [`--endpoints=${endpoint}`, 'txn'])
  running.child.stdin?.end(`\n${operations.join('\n')}\n\n\n`)
  await running
}

export async function etcdutl(...args: string[]): Promise<string> {
  return (await run(join(peers, 'etcdutl'), args)).stdout
}

/** A real etcd on a data directory, until the test is over; returns its endpoint. */
export async function runEtcd(dataDir: string): Promise<{ endpoint: string; stop(): Promise<void> }> {
  const [client, peer] = await Promise.all([freeUrl(), freeUrl()])
  const etcd = spawn(
    join(peers, 'etcd'),
    [
      ...[`--data-dir=${dataDir}`, '--name=default', '--log-level=error'],
      ...[`--listen-client-urls=${client}`, `--advertise-client-urls=${client}`],
      ...[`--listen-peer-urls=${peer}`, `--initial-advertise-peer-urls=${peer}`],
      `--initial-cluster=default=${peer}`,
    ],
    { stdio: 'ignore' },
  )
  const stop = () => ended(etcd)
  onTestFinished(stop)
  const ctl = etcdctl(client)
  for (;;) {
    if (etcd.exitCode !== null) throw new Error(`etcd exited with ${etcd.exitCode}`)
    const isServing = await ctl('endpoint', 'health', '--command-timeout=1s').then(
      () => true,
      () => false,
    )
    if (isServing) return { endpoint: client, stop }
    await sleep(50)
  }
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = once(child, 'exit')
  child.kill('SIGKILL')
  await exited
}

async function freeUrl(): Promise<string> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return `http://127.0.0.1:${port}`
}
