import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { requireInotify } from '../../../src/lab/inotify.ts'
import { temporaryDirectory } from '../datastore/support.ts'

const nodes = (servers: number, agents: number) => [
  ...Array.from({ length: servers }, () => ({ role: 'server' }) as const),
  ...Array.from({ length: agents }, () => ({ role: 'agent' }) as const),
]

test('three servers and two agents run with what the kernel gives by itself, and seven servers do not', async () => {
  const file = join(temporaryDirectory(), 'limit')
  writeFileSync(file, '128\n')
  await requireInotify(nodes(3, 2), file)
  await expect(requireInotify(nodes(7, 0), file)).rejects.toMatchObject({
    code: 'LAB_INOTIFY',
    message: expect.stringContaining('7 nodes'),
    remedy: 'sysctl -w fs.inotify.max_user_instances=8192',
  })
  writeFileSync(file, '512\n')
  await requireInotify(nodes(7, 0), file)
  await requireInotify(nodes(7, 2), join(file, 'none'))
})
