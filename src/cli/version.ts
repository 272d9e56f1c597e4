import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { VersionInfo } from '../payload/payload.ts'
import { type Command, type Invocation, optionValues } from './command.ts'
import { outputOption } from './output.ts'

/** lib/version.json as the build writes it into the bundle; from sources there is none. */
declare const __K8S_VERSION_JSON__: string | undefined

const options = { output: outputOption }

export const version: Command = {
  name: 'version',
  description: 'Print the version of this build and of everything in it (also: k8s --version).',
  examples: [{ command: 'k8s version -o json', description: 'The same for a program' }],
  options,
  handler,
}

async function handler({ flags, environment, print }: Invocation): Promise<number> {
  const info = readVersion(environment['K8S_PAYLOAD_DIR'])
  const { output } = optionValues(options, flags)
  print(output === 'json' ? `${JSON.stringify(info, null, 2)}\n` : renderVersion(info))
  return 0
}

function renderVersion(info: Partial<VersionInfo>): string {
  const lines: readonly (readonly [string, string | undefined])[] = [
    ['GitVersion', info.gitVersion],
    ['GitCommit', info.gitCommit],
    ['GitTreeState', info.gitTreeState],
    ['BuildDate', info.buildDate],
    ['K8sVersion', info.k8sVersion],
    ...Object.entries(info.components ?? {}),
  ]
  const width = Math.max(...lines.map(([name]) => name.length)) + 1
  return lines.map(([name, value]) => `${`${name}:`.padEnd(width)} ${value ?? 'unknown'}\n`).join('')
}

/** From the bundle; from sources, that of a payload that the build has staged, or of the package alone. */
function readVersion(payloadDir: string | undefined): Partial<VersionInfo> {
  if (typeof __K8S_VERSION_JSON__ === 'string') return JSON.parse(__K8S_VERSION_JSON__) as VersionInfo
  const root = join(import.meta.dirname, '..', '..')
  const staged = join(payloadDir ?? join(root, 'build', 'payload'), 'lib', 'version.json')
  if (existsSync(staged)) return JSON.parse(readFileSync(staged, 'utf8')) as VersionInfo
  const { version: packageVersion } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    version: string
  }
  return { gitVersion: `v${packageVersion}`, components: { node: process.version.slice(1) } }
}
