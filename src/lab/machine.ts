import { join } from 'node:path'

/** Sets a machine's namespaces up, enters them, and cleans up. It stands beside the sources, and beside the bundle. */
export const machineScript = join(import.meta.dirname, 'machine.sh')

const hostPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** For the host's own tools. */
export const hostEnvironment = { PATH: hostPath, LANG: 'C.UTF-8' }

/** What a command inside of a machine has: the artifact is in /run/bin. */
export const machineEnvironment = { PATH: `/run/bin:${hostPath}`, HOME: '/root', LANG: 'C.UTF-8' }

/** The arguments of bash that run a command inside. */
export function enterArguments({ id, initPid }: { id: string; initPid: number }, command: readonly string[]) {
  return [machineScript, 'enter', id, String(initPid), ...command]
}
