import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdirSync, mkdtempDisposableSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'

const root = new URL('../../../', import.meta.url).pathname

/** scripts/run.sh with `program` as the artifact, which is interrupted as by a terminal once it says that it is up. */
async function interrupted(program: string) {
  using directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-run-'))
  const inside = (path: string) => join(directory.path, path)
  for (const path of ['bin', 'dist/artifacts', 'build/images']) mkdirSync(inside(path), { recursive: true })
  cpSync(join(root, 'scripts'), inside('scripts'), { recursive: true })
  writeFileSync(inside('build/images/busybox.tar.zst'), '')
  // It wants to be root, which the artifact here need not be.
  writeFileSync(inside('bin/id'), '#!/bin/sh\necho 0\n', { mode: 0o755 })
  writeFileSync(inside('dist/artifacts/k8s'), `#!/bin/bash\n${program}\n`, { mode: 0o755 })
  const child = spawn(inside('scripts/run.sh'), {
    env: { PATH: `${inside('bin')}:${process.env['PATH']}` },
    // A group of its own, as a shell makes it for each command.
    detached: true,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let output = ''
  child.stdout.on('data', (chunk) => {
    output += String(chunk)
    if (/^up$/m.test(output)) process.kill(-child.pid!, 'SIGINT')
  })
  const [code] = (await once(child, 'close')) as [number | null]
  return { code, output, log: readFileSync(inside('build/run/k8s.log'), 'utf8') }
}

test('Ctrl-C of make run stops the daemon once, and its pods with it', async () => {
  const daemon = `
    trap 'echo INT; exit 9' INT
    trap 'signals+=TERM' TERM
    echo "$*"
    echo up
    until [[ $signals ]]; do sleep 0.01; done
    echo "signals: $signals"`
  const { code, output } = await interrupted(daemon)
  expect(output).toMatch(/^signals: TERM$/m)
  expect(output).toMatch(/ --stop-pods$/m)
  expect(code).toBe(0)
})

// As the launcher while it unpacks: bash had it pass over SIGINT, and so a cluster came up that nobody wanted any more.
test('Ctrl-C of make run ends what does not look after signals', async () => {
  expect(await interrupted('echo up; exec sleep 1000')).toMatchObject({ code: 0, log: '' })
})
