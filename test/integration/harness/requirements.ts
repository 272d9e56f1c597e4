import { execFileSync } from 'node:child_process'
import { accessSync, constants, readFileSync, statfsSync, writeFileSync } from 'node:fs'

/** statfs(2) f_type of overlayfs, on which containerd cannot stack its own. */
const overlayfsMagic = 0x794c7630

const commands = [
  'bash',
  'unshare',
  'nsenter',
  'ip',
  'mount',
  'iptables',
  'nft',
  'find',
  'mountpoint',
] as const
const filesystems = ['overlay', 'tmpfs', 'proc', 'sysfs'] as const
const namespaces = ['mnt', 'net', 'pid', 'uts', 'cgroup'] as const

/** Instances that all machines of all tests share: a server has 20 and an agent 8, and the kernel gives 128 by itself. */
const inotifyLimit = { file: '/proc/sys/fs/inotify/max_user_instances', least: 1024 }

/**
 * Throws one error that lists all that this machine lacks for a cluster. The tests fail with it: a
 * suite that skips what it cannot run reports success for what nobody has seen working.
 */
export function requireClusterHost(directory: string): void {
  const missing: string[] = []
  if (process.getuid?.() !== 0) missing.push('root (run it with sudo)')
  for (const command of commands)
    if (!isCommand(command)) missing.push(`the command ${command} (make setup installs it)`)
  const known = readFileSync('/proc/filesystems', 'utf8').split(/\s+/)
  for (const name of filesystems)
    if (!known.includes(name)) missing.push(`the kernel's ${name} filesystem (modprobe ${name})`)
  for (const name of namespaces)
    if (!isReadable(`/proc/self/ns/${name}`)) missing.push(`the kernel's ${name} namespaces`)
  if (!/ cgroup2? /.test(readFileSync('/proc/self/mounts', 'utf8')))
    missing.push('a mounted cgroup hierarchy')
  if (statfsSync(directory).type === overlayfsMagic) {
    missing.push(
      `a real filesystem below ${directory}, which is on overlayfs (set K8S_TEST_DIRECTORY to another place)`,
    )
  }
  if (!allowsInotify())
    missing.push(`instances of inotify (sysctl -w fs.inotify.max_user_instances=${inotifyLimit.least})`)
  if (missing.length === 0 && !canMakeVeth()) missing.push("the kernel's veth and bridge devices")
  if (missing.length > 0) throw new Error(`cannot run clusters here: missing are ${missing.join('; ')}`)
}

/** Raises the limit of the host where it is lower: two files of five machines each would come to it. */
function allowsInotify(): boolean {
  const { file, least } = inotifyLimit
  try {
    if (Number(readFileSync(file, 'utf8')) < least) writeFileSync(file, String(least))
    return true
  } catch {
    return false
  }
}

function isCommand(name: string): boolean {
  const directories = `${process.env['PATH'] ?? ''}:/usr/sbin:/usr/bin:/sbin:/bin`.split(':')
  return directories.some((directory) => isReadable(`${directory}/${name}`))
}

function isReadable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK)
    return true
  } catch {
    return false
  }
}

/** Tried in a network namespace that ends with the command: modules are loaded on demand by asking. */
function canMakeVeth(): boolean {
  try {
    execFileSync(
      'unshare',
      ['--net', 'sh', '-c', 'ip link add left type veth peer name right && ip link add bridge0 type bridge'],
      { stdio: 'ignore' },
    )
    return true
  } catch {
    return false
  }
}
