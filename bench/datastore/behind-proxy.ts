/**
 * An etcd, and the proxy of server-mode ha in front of it: node behind-proxy.ts DIRECTORY PORT serves at DIRECTORY/socket. The etcd ends
 * with this process.
 */
import { spawn } from 'node:child_process'
import { silentLogger } from '../../src/base/logger.ts'
import { MemberProxy } from '../../src/storage/member-proxy.ts'
import { Members } from '../../src/storage/members.ts'
import { commands } from './servers.ts'

const [directory = '', port = ''] = process.argv.slice(2)
const endpoint = `http://127.0.0.1:${port}`
spawn('setpriv', ['--pdeathsig', 'KILL', ...commands.etcd(directory, Number(port))], { stdio: 'inherit' })
const tls = () => ({})
const members = new Members({ endpoints: [endpoint], tls, key: '/registry', log: silentLogger })
const proxy = new MemberProxy({ path: `${directory}/socket`, members, tls, log: silentLogger })
const end = new AbortController()
void members.watch(end.signal)
await members.whenServing(end.signal)
await proxy.listen()
