import { mkdtempDisposableSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Config } from '../../../src/config/config.ts'
import type { Host } from '../../../src/config/host.ts'
import { loadConfig } from '../../../src/config/load.ts'
import type { Flags } from '../../../src/config/table/sources.ts'

/** A machine whose name does not depend on where the test runs. */
export const testHost: Host = {
  nodeName: () => 'worker-1',
  facts: () => ({ cluster: {}, node: {} }),
}

export interface Given {
  readonly flags?: readonly string[]
  readonly environment?: Readonly<Record<string, string>>
  /** The text of the configuration file. */
  readonly file?: string
  readonly host?: Host
  readonly warn?: (line: string) => void
}

/** Loads a configuration from what is given, and from nothing of this machine. */
export async function load({
  flags = [],
  environment = {},
  file = '',
  host = testHost,
  warn,
}: Given): Promise<Config> {
  using directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-config-'))
  const path = join(directory.path, 'config.yaml')
  writeFileSync(path, file)
  const hideDirectory = (error: unknown): never => {
    if (error instanceof Error) error.message = error.message.replace(directory.path, 'DIR')
    throw error
  }
  return await loadConfig({
    flags: flagsOf(flags),
    environment: { K8S_CONFIG: path, ...environment },
    host,
    ...(warn && { warn }),
  }).catch(hideDirectory)
}

/** The one line that a user sees, and the code that decides the exit code. */
export async function refusal(given: Given): Promise<string> {
  const error: unknown = await load(given).then(
    () => new Error('nothing was refused'),
    (thrown: unknown) => thrown,
  )
  const { code, message } = error as { code?: string; message: string }
  return code === 'USAGE' ? message : `not a usage error: ${message}`
}

/** --name=text; a bare flag is given as --name=true, as the command line's parser does. */
export function flagsOf(words: readonly string[]): Flags {
  return words.map((word) => {
    const equals = word.indexOf('=')
    return { name: word.slice(2, equals), text: word.slice(equals + 1) }
  })
}
