import { spawn } from 'node:child_process'
import { createWriteStream, mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
const suite = join(root, 'test/conformance/storage/run.sh')

/** Upstream's own storage tests, each against a datastore of its own, and how many they are. */
test.each([
  ['v0.37.1', 509],
  ['v0.36.4', 335],
])('k8s.io/apiserver %s: all of pkg/storage/etcd3', async (version, tests) => {
  const directory = join(root, 'build/conformance', `apiserver-${version}`)
  mkdirSync(directory, { recursive: true })
  const output = createWriteStream(join(directory, 'output.log'))
  const child = spawn(suite, [directory, '-test.v'], { env: { ...process.env, APISERVER_VERSION: version } })
  const results: string[] = []
  for (const stream of [child.stdout, child.stderr]) {
    let rest = ''
    stream.setEncoding('utf8')
    stream.on('data', (chunk: string) => {
      output.write(chunk)
      const lines = (rest + chunk).split('\n')
      rest = lines.pop() ?? ''
      for (const line of lines) if (/^\s*--- (PASS|FAIL|SKIP): /.test(line)) results.push(line.trim())
    })
  }
  const exitCode = await new Promise((resolve) => child.on('close', resolve))
  output.end()
  expect(results.filter((line) => !line.startsWith('--- PASS'))).toEqual([])
  expect(exitCode).toBe(0)
  expect(results.length).toBe(tests)
})
