import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { onTestFinished } from 'vitest'
import { freePort } from '../free-port.ts'

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

interface KeyPair {
  readonly certFile: string
  readonly keyFile: string
}

/** What an etcd that wants certificates is run with, and what its clients show. */
export interface EtcdTls {
  /** The authorities of both certificates. */
  readonly caFile: string
  readonly server: KeyPair
  readonly client: KeyPair
}

/** etcdctl against one endpoint; returns what it prints. */
export function etcdctl(endpoint: string, tls?: EtcdTls): Etcdctl {
  const shown = tls === undefined ? [] : clientFlags(tls)
  return async (...args) => {
    const all = [`--endpoints=${endpoint}`, ...shown, ...args]
    return (await run(join(peers, 'etcdctl'), all, { maxBuffer: outputLimit })).stdout
  }
}

/** As etcdctl and `k8s db` know them. */
export function clientFlags({ caFile, client }: EtcdTls): string[] {
  return [`--cacert=${caFile}`, `--cert=${client.certFile}`, `--key=${client.keyFile}`]
}

/** etcd's JSON gateway is a client of its own server, so it shows the client's certificate there. */
function serverFlags({ caFile, server, client }: EtcdTls): string[] {
  return [
    ...['--client-cert-auth', `--trusted-ca-file=${caFile}`],
    ...[`--cert-file=${server.certFile}`, `--key-file=${server.keyFile}`],
    ...[`--client-cert-file=${client.certFile}`, `--client-key-file=${client.keyFile}`],
  ]
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
export async function runEtcd(
  dataDir: string,
  tls?: EtcdTls,
): Promise<{ endpoint: string; stop(): Promise<void> }> {
  const [plain, peer] = await Promise.all([freeUrl(), freeUrl()])
  const client = tls === undefined ? plain : plain.replace('http:', 'https:')
  const etcd = spawn(
    join(peers, 'etcd'),
    [
      ...[`--data-dir=${dataDir}`, '--name=default', '--log-level=error'],
      ...[`--listen-client-urls=${client}`, `--advertise-client-urls=${client}`],
      ...[`--listen-peer-urls=${peer}`, `--initial-advertise-peer-urls=${peer}`],
      ...[`--initial-cluster=default=${peer}`, ...(tls === undefined ? [] : serverFlags(tls))],
    ],
    { stdio: 'ignore' },
  )
  const stop = () => ended(etcd)
  onTestFinished(stop)
  const ctl = etcdctl(client, tls)
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

/** Several real etcds that are members of one; each can be ended and begun again. Plain HTTP. */
export async function etcdCluster(dataDirs: readonly string[]) {
  const members = await Promise.all(
    dataDirs.map(async (dataDir, index) => {
      const [client, peer] = await Promise.all([freeUrl(), freeUrl()])
      return { name: `m${index}`, dataDir, client, peer }
    }),
  )
  const all = members.map(({ name, peer }) => `${name}=${peer}`).join()
  return members.map(({ name, dataDir, client, peer }) => {
    let etcd: ChildProcess | undefined
    const stop = async (signal?: NodeJS.Signals) => (etcd === undefined ? undefined : ended(etcd, signal))
    onTestFinished(() => stop())
    return {
      endpoint: client,
      stop,
      start() {
        etcd = spawn(
          join(peers, 'etcd'),
          [
            ...[`--data-dir=${dataDir}`, `--name=${name}`, '--log-level=error', `--initial-cluster=${all}`],
            ...[`--listen-client-urls=${client}`, `--advertise-client-urls=${client}`],
            ...[`--listen-peer-urls=${peer}`, `--initial-advertise-peer-urls=${peer}`],
          ],
          { stdio: 'ignore' },
        )
      },
    }
  })
}

async function ended(child: ChildProcess, signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = once(child, 'exit')
  child.kill(signal)
  await exited
}

async function freeUrl(): Promise<string> {
  return `http://127.0.0.1:${await freePort()}`
}
