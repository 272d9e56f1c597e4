import type { HostFiles } from './host-files.ts'

const hostFile = '/etc/resolv.conf'
/** systemd-resolved's list of the servers behind its own at 127.0.0.53. */
const resolvedFile = '/run/systemd/resolve/resolv.conf'

/** Either a file of the machine that pods can be given, or the text of one to be written for them. */
export type ResolvConf =
  | { readonly kind: 'host'; readonly path: string }
  | { readonly kind: 'rendered'; readonly text: string; readonly hasServer: boolean }

/**
 * The name servers for pods. A server on a loopback address is the host's alone: in a pod the address is
 * the pod's own, and CoreDNS would ask itself. With none left, names outside the cluster have no answer:
 * whom to ask instead is for the machine's owner to say.
 */
export function chooseResolvConf(files: HostFiles): ResolvConf {
  const own = files.read(hostFile) ?? ''
  if (isReachable(own)) return { kind: 'host', path: hostFile }
  if (isReachable(files.read(resolvedFile) ?? '')) return { kind: 'host', path: resolvedFile }
  const servers = nameServers(own).filter((server) => !isLoopback(server))
  const kept = own.split('\n').filter((line) => /^\s*(search|domain|options)\s/.test(line))
  const lines = [
    '# For pods, from /etc/resolv.conf without its servers on loopback addresses.',
    ...servers.map((server) => `nameserver ${server}`),
    ...kept,
  ]
  return { kind: 'rendered', text: `${lines.join('\n')}\n`, hasServer: servers.length > 0 }
}

function isReachable(text: string): boolean {
  const servers = nameServers(text)
  return servers.length > 0 && !servers.some(isLoopback)
}

function nameServers(text: string): string[] {
  return [...text.matchAll(/^\s*nameserver\s+(\S+)/gm)].map((match) => match[1] ?? '')
}

function isLoopback(server: string): boolean {
  return server === '::1' || server.startsWith('127.') || server === '0.0.0.0'
}
