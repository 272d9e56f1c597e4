/**
 * What the daemon of mode ha has between kube-apiserver and the members of an etcd: node proxy.ts SOCKET ENDPOINT...
 *
 * Prints "serving on SOCKET" when it listens.
 */
import { rmSync } from 'node:fs'
import { createLogger } from '../../../src/base/logger.ts'
import { MemberProxy } from '../../../src/storage/member-proxy.ts'
import { Members } from '../../../src/storage/members.ts'

const [path = '', ...endpoints] = process.argv.slice(2)
// What one that was killed has left.
rmSync(path, { force: true })
const log = createLogger({ format: 'json' })
const tls = () => ({})
const members = new Members({ endpoints, key: 'key/0', tls, log })
const proxy = new MemberProxy({ path, members, tls, log })
await proxy.listen()
process.stdout.write(`serving on ${path}\n`)
await members.watch(new AbortController().signal)
