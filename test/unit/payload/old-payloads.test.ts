import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { beforeEach, expect, onTestFinished, test } from 'vitest'
import { footer } from '../../../scripts/artifact.ts'
import {
  keepArtifact,
  listPayloads,
  type PayloadPlace,
  recordRun,
  removeOldPayloads,
} from '../../../src/payload/old-payloads.ts'

const ids = ['aaaaaaaaaaaaaaaa', 'bbbbbbbbbbbbbbbb', 'cccccccccccccccc', 'dddddddddddddddd'] as const
const [a, b, c, d] = ids

let place: PayloadPlace

/** Four payloads, unpacked in this order, of which the last one is the running one. */
beforeEach(() => {
  const directory = realpathSync(mkdtempSync(join(tmpdir(), 'k8s-payloads-')))
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  place = { payloadsDir: join(directory, 'data'), current: d, bundlesDir: join(directory, 'run/task') }
  ids.forEach((id, age) => {
    mkdirSync(join(place.payloadsDir, id, 'bin'), { recursive: true })
    mkdirSync(join(place.payloadsDir, id, 'lib'))
    writeFileSync(join(place.payloadsDir, id, 'lib/version.json'), `{"gitVersion":"v1.${age}"}`)
    utimesSync(join(place.payloadsDir, id), age, age)
  })
})

const uses = async () => Object.fromEntries((await listPayloads(place)).map(({ id, use }) => [id, use]))
const left = (): string[] => readdirSync(place.payloadsDir).filter((name) => name !== '.runs.json')

/** Runs until the test ends it. */
async function start(command: string, args: readonly string[], env = {}): Promise<ChildProcess> {
  const child = spawn(command, args, {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { PATH: process.env['PATH'], ...env },
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  // The program is on its way once it has answered.
  child.stdin?.write('ready\n')
  await once(child.stdout!, 'data')
  return child
}

async function end(child: ChildProcess): Promise<void> {
  const exited = once(child, 'exit')
  child.kill('SIGKILL')
  await exited
}

test('the running one stays, and the one before it; the others go', async () => {
  expect(await uses()).toEqual({ [d]: 'running', [c]: 'previous', [b]: 'unused', [a]: 'unused' })
  const removed = await removeOldPayloads(place)
  expect(removed.map(({ id, version }) => ({ id, version }))).toEqual([
    { id: b, version: 'v1.1' },
    { id: a, version: 'v1.0' },
  ])
  expect(left()).toEqual([c, d])
  expect(await removeOldPayloads(place)).toEqual([])
})

test('the one before is the one whose cluster was ready last, and not the one that was unpacked last', async () => {
  await recordRun({ ...place, current: b })
  await recordRun({ ...place, current: a })
  await recordRun(place)
  await recordRun(place)
  expect(await uses()).toEqual({ [d]: 'running', [a]: 'previous', [c]: 'unused', [b]: 'unused' })
  // The way back: the one that was left is the one before then.
  place = { ...place, current: a }
  await recordRun(place)
  expect(await uses()).toMatchObject({ [a]: 'running', [d]: 'previous' })
})

test('a record that is damaged is none', async () => {
  writeFileSync(join(place.payloadsDir, '.runs.json'), '{"damaged"')
  expect(await uses()).toMatchObject({ [d]: 'running', [c]: 'previous' })
  await recordRun(place)
  expect(readFileSync(join(place.payloadsDir, '.runs.json'), 'utf8')).toBe(`["${d}"]\n`)
})

test('one that a process was started from stays until it has ended', async () => {
  const program = join(place.payloadsDir, a, 'bin/cat')
  copyFileSync('/bin/cat', program)
  chmodSync(program, 0o755)
  const child = await start(program, [])
  expect(await uses()).toMatchObject({ [a]: 'used', [b]: 'unused' })
  expect((await removeOldPayloads(place)).map(({ id }) => id)).toEqual([b])
  await end(child)
  expect((await removeOldPayloads(place)).map(({ id }) => id)).toEqual([a])
})

test('one of which a process has a library stays', async () => {
  const library = join(place.payloadsDir, a, 'lib/some.so')
  copyFileSync(libraryOf(process.pid), library)
  const child = await start('/bin/cat', [], { LD_PRELOAD: library })
  expect(await uses()).toMatchObject({ [a]: 'used', [b]: 'unused' })
  await end(child)
  expect(await uses()).toMatchObject({ [a]: 'unused' })
})

test('one that is reached by another path, a link, stays as well', async () => {
  const program = join(place.payloadsDir, a, 'bin/cat')
  copyFileSync('/bin/cat', program)
  chmodSync(program, 0o755)
  const link = join(dirname(place.payloadsDir), 'link')
  symlinkSync('data', link)
  await start(program, [])
  place = { ...place, payloadsDir: link }
  expect(await uses()).toMatchObject({ [a]: 'used', [b]: 'unused' })
})

test("one that the files of a container name stays until the container's are gone", async () => {
  const bundle = join(place.bundlesDir, 'k8s.io/0123')
  mkdirSync(bundle, { recursive: true })
  writeFileSync(join(bundle, 'shim-binary-path'), join(place.payloadsDir, b, 'bin/containerd-shim-runc-v2'))
  expect(await uses()).toMatchObject({ [b]: 'used', [a]: 'unused' })
  rmSync(bundle, { recursive: true })
  expect(await uses()).toMatchObject({ [b]: 'unused' })
})

test('what is no payload is left alone', async () => {
  for (const name of ['.lock', 'notes', 'AAAAAAAAAAAAAAAA']) writeFileSync(join(place.payloadsDir, name), '')
  await removeOldPayloads(place)
  expect(left().toSorted()).toEqual(['.lock', 'AAAAAAAAAAAAAAAA', c, d, 'notes'].toSorted())
})

test('what has the name of a payload and is none is neither listed nor removed', async () => {
  const [file, dangling, elsewhere] = ['eeeeeeeeeeeeeeee', 'ffffffffffffffff', '0000000000000000'] as const
  writeFileSync(join(place.payloadsDir, file), '')
  symlinkSync('nowhere', join(place.payloadsDir, dangling))
  symlinkSync(tmpdir(), join(place.payloadsDir, elsewhere))
  expect(Object.keys(await uses()).toSorted()).toEqual([...ids])
  await removeOldPayloads(place)
  expect(left().toSorted()).toEqual([elsewhere, c, d, file, dangling])
})

test('two that remove at once do not mind each other', async () => {
  const removed = await Promise.all([removeOldPayloads(place), removeOldPayloads(place)])
  expect(
    removed
      .flat()
      .map(({ id }) => id)
      .toSorted(),
  ).toEqual([a, b])
  expect(left()).toEqual([c, d])
})

test('without a directory there is nothing', async () => {
  expect(await listPayloads({ ...place, payloadsDir: '/nonexistent/data' })).toEqual([])
})

function libraryOf(pid: number): string {
  const found = /\/\S*\/libm[-.]\S*/.exec(readFileSync(`/proc/${pid}/maps`, 'utf8'))?.[0]
  if (found === undefined) throw new Error('this process has no library to copy')
  return found
}

/** Of a launcher and two sections; its payload is called as its footer says. */
function makeArtifact(text: string): { path: string; id: string } {
  const launcher = Buffer.from('launcher')
  const sections = [Buffer.from(text), Buffer.alloc(100_000, text)].map((content) => ({
    content,
    unpackedBytes: 1,
  }))
  const end = footer(sections, launcher.length)
  const path = join(dirname(place.payloadsDir), 'k8s')
  writeFileSync(path, Buffer.concat([launcher, ...sections.map(({ content }) => content), end]), {
    mode: 0o700,
  })
  const id = end.subarray(end.length - 48, end.length - 40).toString('hex')
  mkdirSync(join(place.payloadsDir, id), { recursive: true })
  return { path, id }
}

test('the artifact is kept in its payload, as it was, for whoever may run it', async () => {
  const { path, id } = makeArtifact('one')
  const own = { ...place, current: id }
  expect(await keepArtifact({ ...own, artifact: path })).toBe('kept')
  const kept = join(place.payloadsDir, id, 'k8s')
  expect(readFileSync(kept).equals(readFileSync(path))).toBe(true)
  expect(statSync(kept).mode & 0o777).toBe(0o755)
  // An upgrade may write into the same file.
  writeFileSync(path, 'another')
  expect(readFileSync(kept, 'latin1')).toMatch(/^launcher/)
  expect(await keepArtifact({ ...own, artifact: path })).toBe('is there')
  expect((await listPayloads(own))[0]).toMatchObject({ id, use: 'running', artifact: kept })
})

test.each(['replaced', 'damaged', 'cut short'])('an artifact that is %s by then is not kept', async (how) => {
  const { path, id } = makeArtifact('one')
  const content = readFileSync(path)
  if (how === 'damaged') content.write('x', 20_000)
  writeFileSync(path, how === 'cut short' ? content.subarray(0, 200) : content)
  if (how === 'replaced') makeArtifact('two')
  await expect(keepArtifact({ ...place, current: id, artifact: path })).rejects.toThrow(
    how === 'damaged' ? /it is damaged$/ : /it is another file by now$/,
  )
  expect(readdirSync(join(place.payloadsDir, id))).toEqual([])
  expect(existsSync(join(place.payloadsDir, id, 'k8s'))).toBe(false)
})
