import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import type { Document, LineCounter, Node, Pair } from 'yaml'
import { AppError, errorCode } from '../../base/errors.ts'
import { type Setting, showText, usageError } from './setting.ts'

export const defaultConfigFile = '/etc/k8s/config.yaml'

/** More is no configuration file, whatever its name. */
const sizeLimitBytes = 1024 * 1024

/** Of what is written once and meant many times. */
const aliasesLimit = 100

/** What is wrong with a path that somebody wrote. All else (EIO, EMFILE, ESTALE) is the machine's, and may pass. */
const pathErrors: readonly string[] = ['ENOENT', 'ENOTDIR', 'EACCES', 'ELOOP', 'ENAMETOOLONG', 'ENXIO']

/** The settings of a YAML file, in its order. A file that nobody named may be absent. */
export async function settingsOfFile({ path, named }: { path: string; named: boolean }): Promise<Setting[]> {
  const text = await readText({ path, named })
  if (text === undefined) return []
  // 40 ms that a daemon without a file doesn't spend.
  const { LineCounter, isAlias, isMap, isScalar, isSeq, parseDocument } = await import('yaml')
  const lines = new LineCounter()
  // Everything stays the text that it is: `node-name: 0123` is no octal number.
  const document = parseDocument(text, { schema: 'failsafe', lineCounter: lines })
  refuseBadYaml({ path, document, lines })
  if (document.contents === null || (isScalar(document.contents) && document.contents.value === '')) return []
  if (!isMap(document.contents)) {
    throw usageError(`cannot use ${path}: allowed is a map of settings, such as "node-name: NAME"`)
  }
  return document.contents.items.map((pair) => {
    const line = lineOf(pair, lines)
    const name = isScalar(pair.key) ? String(pair.key.value) : ''
    if (name === '') throw usageError(`cannot use ${path}:${line}: a setting's name is allowed as key`)
    const resolved = (node: unknown): unknown => (isAlias(node) ? node.resolve(document) : node)
    const value = resolved(pair.value)
    const items = isSeq(value) ? value.items.map(resolved) : [value]
    if (!items.every((item) => item === null || isScalar(item))) {
      throw usageError(
        `cannot use ${showText(name)} in ${path}:${line}: allowed is one value or a list of them, not a map or a nested list`,
      )
    }
    const texts = items.map((item) => String((item as { value?: unknown } | null)?.value ?? ''))
    return { name, texts, origin: { kind: 'file', path, line } }
  })
}

/** The map that another program's configuration file is, as YAML or JSON. Throws USAGE. */
export async function readYamlFile(path: string): Promise<Readonly<Record<string, unknown>>> {
  const text = await readText({ path, named: true })
  const { LineCounter, parseDocument } = await import('yaml')
  const lines = new LineCounter()
  const document = parseDocument(text ?? '', { lineCounter: lines })
  refuseBadYaml({ path, document, lines })
  const value: unknown = document.toJS({ maxAliasCount: aliasesLimit })
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return { ...value }
  throw usageError(`cannot use ${path}: allowed is a map of its keys`)
}

async function readText({ path, named }: { path: string; named: boolean }): Promise<string | undefined> {
  try {
    // Without O_NONBLOCK a named pipe would wait for its writer here.
    await using file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
    const stat = await file.stat()
    const { size } = stat
    if (!stat.isFile()) throw usageError(`cannot read the configuration file ${path}: it is no regular file`)
    if (size > sizeLimitBytes) {
      throw usageError(
        `cannot read the configuration file ${path}: it has ${size} bytes; at most ${sizeLimitBytes} are allowed`,
      )
    }
    return await file.readFile('utf8')
  } catch (error) {
    const code = errorCode(error)
    if (code === 'USAGE') throw error
    if (code === 'ENOENT' && !named) return undefined
    const message = `cannot read the configuration file ${path}`
    if (pathErrors.includes(code ?? '')) throw usageError(message, { cause: error })
    throw new AppError(message, { code: 'CONFIG_READ', path }, { cause: error })
  }
}

function refuseBadYaml({
  path,
  document,
  lines,
}: {
  path: string
  document: Document
  lines: LineCounter
}): void {
  const [error] = document.errors
  if (error === undefined) return
  const { line } = lines.linePos(error.pos[0])
  // The message goes on with an excerpt, over several lines.
  const [reason = ''] = error.message.replace(/ at line \d+, column \d+:?/, '').split('\n')
  throw usageError(`cannot use ${path}:${line}: it is not valid YAML: ${reason}`)
}

function lineOf(pair: Pair<unknown, unknown>, lines: LineCounter): number {
  const range = (pair.key as Node | null)?.range
  return range ? lines.linePos(range[0]).line : 1
}
