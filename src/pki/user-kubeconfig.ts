/*
 * A kubeconfig that a user named (--write-kubeconfig), and that may have other clusters in it. What is ours in it has
 * a mark, an extension as kubectl keeps them for whoever writes kubeconfigs; with the data directory and its id in it,
 * so that several daemons may share a file, also one in a home that several machines have. Names are those that are
 * free, and stay when the user renames an entry.
 */
import { lstat, open, readlink, rm, stat } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Document, YAMLMap } from 'yaml'
import { AppError, describeError, errorCode } from '../base/errors.ts'
import { prepareParent, privateMode, readFileIfPresent, writeFileAtomically } from '../base/files.ts'
import { type Access, renderKubeconfig } from './kubeconfig.ts'

/** The lists of a kubeconfig, and what the items of each are called. */
const lists = { clusters: 'cluster', users: 'user', contexts: 'context' } as const
type ListName = keyof typeof lists
const listNames = Object.keys(lists) as readonly ListName[]

const extensionName = 'k8s'
const freeName = 'k8s'
const linksLimit = 40
const sizeLimitBytes = 4 * 1024 * 1024
const othersPermissions = 0o007
const othersWrite = 0o002
const lockAttempts = 20
const lockIntervalMs = 100

interface MergeOptions {
  readonly path: string
  readonly access: Access
  /** Whose entries are ours. */
  readonly dataDir: string
  /** Of the data directory: machines may have the same paths. Where it is unknown, the path alone counts. */
  readonly id?: string | undefined
}

/**
 * Makes the file if it is missing, for its owner alone; else puts our entries into it, beside all others, and keeps
 * its owner and mode, but for what everybody could do with a key. The current context is ours only where there is none.
 * Rejects with KUBECONFIG when it is no kubeconfig: it stays as it is then.
 */
export async function mergeIntoKubeconfig({ path, access, ...whose }: MergeOptions): Promise<void> {
  const mark = markOf(whose)
  const target = await followLinks(path)
  const alone = renderKubeconfig(
    access,
    { cluster: freeName, user: freeName, context: freeName },
    { extensions: [mark] },
  )
  await prepareParent(target)
  await rewrite(target, async (text) => {
    if (text === undefined || text.trim() === '' || text === alone) return alone
    const config = await UserKubeconfig.parse(target, text)
    if (config.isUnmarkedCopy(access)) return alone
    config.put(access, mark)
    return config.text
  })
}

/** Removes our entries, and the file when nothing else was in it. A file that is missing is fine; rejects as above. */
export async function removeFromKubeconfig({ path, ...whose }: Omit<MergeOptions, 'access'>): Promise<void> {
  const target = await followLinks(path)
  if ((await readFileIfPresent(target)) === undefined) return
  await rewrite(target, async (text = '') => {
    const config = await UserKubeconfig.parse(target, text)
    if (!config.remove(markOf(whose))) return text
    return config.isEmpty() ? undefined : config.text
  })
}

type Mark = {
  readonly name: string
  /** id: missing in files of earlier versions. */
  readonly extension: { readonly 'data-dir': string; readonly id?: string }
}

function markOf({ dataDir, id }: Pick<MergeOptions, 'dataDir' | 'id'>): Mark {
  return { name: extensionName, extension: { 'data-dir': dataDir, ...(id !== undefined && { id }) } }
}

class UserKubeconfig {
  readonly #document: Document
  /** As kubectl writes lists. */
  readonly #indentSeq: boolean

  private constructor(document: Document, text: string) {
    this.#document = document
    this.#indentSeq = !/^- /m.test(text)
  }

  static async parse(path: string, text: string): Promise<UserKubeconfig> {
    const { isAlias, isMap, parseDocument } = await import('yaml')
    try {
      const document = parseDocument(text)
      const [error] = document.errors
      if (error !== undefined) throw new Error(error.message.split('\n', 1)[0])
      if (document.contents !== null && !isMap(document.contents)) throw new Error('it is no map')
      const config = new UserKubeconfig(document, text)
      requireKubeconfig(document.toJS())
      // What is added to it would be added there, too, where it comes from.
      const alias = listNames.find((list) => isAlias(document.get(list, true)))
      if (alias !== undefined) throw new Error(`its ${alias} are an alias`)
      return config
    } catch (cause) {
      throw unusable(path, describeError(cause))
    }
  }

  /** As earlier versions wrote it: this cluster alone, without marks. */
  isUnmarkedCopy({ cluster }: Access): boolean {
    const authority = 'certificate-authority-data'
    const config = (this.#document.toJS() ?? {}) as Partial<Record<ListName, { [body: string]: object }[]>>
    const bodies = listNames.map((list) => config[list]?.map((entry) => entry[lists[list]] ?? {}) ?? [])
    const isUnmarked = bodies.flat().every((body) => !('extensions' in body))
    const [found] = (bodies[0] ?? []) as Record<string, unknown>[]
    return (
      bodies.every(({ length }) => length === 1) && isUnmarked && found?.[authority] === cluster[authority]
    )
  }

  put({ cluster, user }: Access, mark: Mark): void {
    const names = { clusters: '', users: '', contexts: '' }
    for (const list of listNames) names[list] = this.#nameOfOurs(list, mark) ?? this.#freeName()
    const fields = {
      clusters: cluster,
      users: user,
      contexts: { cluster: names.clusters, user: names.users },
    }
    for (const list of listNames) {
      const ours = this.#ours(list, mark)[0]
      if (ours === undefined) this.#add(list, { name: names[list], fields: fields[list], mark })
      else {
        for (const [key, value] of Object.entries(fields[list])) this.#set(ours, [lists[list], key], value)
        this.#complete(ours, lists[list], mark)
      }
    }
    if (!this.#document.get('current-context')) this.#document.set('current-context', names.contexts)
  }

  /** Whether anything was there. */
  remove(mark: Mark): boolean {
    const context = this.#nameOfOurs('contexts', mark)
    let isChanged = false
    for (const list of listNames) {
      for (const ours of this.#ours(list, mark)) {
        const { items } = this.#document.get(list) as { items: unknown[] }
        items.splice(items.indexOf(ours), 1)
        isChanged = true
      }
    }
    if (context !== undefined && this.#document.get('current-context') === context)
      this.#document.set('current-context', '')
    return isChanged
  }

  /** Nothing is in it that anybody would miss. */
  isEmpty(): boolean {
    const { apiVersion: _, kind: __, ...rest } = (this.#document.toJS() ?? {}) as Record<string, unknown>
    const hasComment = /^\s*#/m.test(this.text)
    return !hasComment && Object.values(rest).every((value) => !value || Object.keys(value).length === 0)
  }

  get text(): string {
    return this.#document.toString({ lineWidth: 0, indentSeq: this.#indentSeq })
  }

  #add(list: ListName, given: { name: string; fields: object; mark: Mark }): void {
    const { name, fields, mark } = given
    const entry = { name, [lists[list]]: { ...fields, extensions: [mark] } }
    const present = this.#document.get(list) as { items?: unknown[] } | null | undefined
    if (present?.items === undefined) this.#document.set(list, this.#document.createNode([entry]))
    else present.items.push(this.#document.createNode(entry))
  }

  #set(entry: YAMLMap, path: readonly (string | number)[], value: unknown): void {
    if (entry.getIn(path) !== value) entry.setIn(path, value)
  }

  /** Puts the id into a mark of an earlier version. */
  #complete(entry: YAMLMap, body: string, mark: Mark): void {
    const extensions = extensionsOf(entry.toJS(this.#document), body)
    const at = extensions.findIndex((found) => isSameMark(found, mark))
    if (mark.extension.id !== undefined)
      this.#set(entry, [body, 'extensions', at, 'extension', 'id'], mark.extension.id)
  }

  #ours(list: ListName, mark: Mark): YAMLMap[] {
    const { items = [] } = (this.#document.get(list) ?? {}) as { items?: YAMLMap[] }
    return items.filter((item) =>
      extensionsOf(item.toJS(this.#document), lists[list]).some((found) => isSameMark(found, mark)),
    )
  }

  #nameOfOurs(list: ListName, mark: Mark): string | undefined {
    return this.#ours(list, mark)[0]?.get('name') as string | undefined
  }

  /** One that no entry has, of whatever list. */
  #freeName(): string {
    const config = (this.#document.toJS() ?? {}) as Kubeconfig
    const taken = new Set(listNames.flatMap((list) => (config[list] ?? []).map(({ name }) => name)))
    for (let number = 1; ; number++) {
      const name = number === 1 ? freeName : `${freeName}-${number}`
      if (!taken.has(name)) return name
    }
  }
}

type Kubeconfig = { readonly [List in ListName]?: readonly { readonly name: string }[] | null }

function extensionsOf(entry: unknown, body: string): readonly unknown[] {
  const { extensions } = ((entry as Record<string, unknown>)[body] ?? {}) as { extensions?: unknown }
  return Array.isArray(extensions) ? extensions : []
}

function isSameMark(given: unknown, mark: Mark): boolean {
  const { name, extension } = (given ?? {}) as { name?: unknown; extension?: Partial<Mark['extension']> }
  const isKnown = extension?.id !== undefined && mark.extension.id !== undefined
  return (
    name === mark.name &&
    extension?.['data-dir'] === mark.extension['data-dir'] &&
    (!isKnown || extension.id === mark.extension.id)
  )
}

function requireKubeconfig(data: unknown): void {
  const config = (data ?? {}) as Record<string, unknown>
  const kind = config['kind'] ?? 'Config'
  if (kind !== 'Config') throw new Error('its kind is not Config')
  const known = ['apiVersion', 'kind', 'preferences', 'current-context', 'extensions', ...listNames]
  if (Object.keys(config).length > 0 && !known.some((key) => key in config))
    throw new Error('it has no cluster')
  for (const list of listNames) {
    const items = config[list] ?? []
    const isEach =
      Array.isArray(items) &&
      items.every(
        (item: { name?: unknown } | null) => typeof item === 'object' && typeof item?.name === 'string',
      )
    if (!isEach) throw new Error(`its ${list} are no list of names`)
  }
}

/** Where a path leads to, whether or not there is a file yet. */
async function followLinks(path: string): Promise<string> {
  let target = resolve(path)
  for (let links = 0; links <= linksLimit; links++) {
    const stats = await lstat(target).catch((error: unknown) => {
      if (errorCode(error) === 'ENOENT') return undefined
      throw unusable(path, describeError(error))
    })
    if (stats !== undefined) await refusePlanted(path, target, stats.uid)
    if (stats === undefined || stats.isFile()) return target
    if (!stats.isSymbolicLink()) throw unusable(path, 'it is no file')
    target = resolve(dirname(target), await readlink(target))
  }
  throw unusable(path, 'its links lead in a circle')
}

/** Where everybody may put files, one of another user's would be his to read, with our key in it. */
async function refusePlanted(path: string, found: string, owner: number): Promise<void> {
  const directory = dirname(found)
  const isOpen = ((await stat(directory)).mode & othersWrite) !== 0
  if (!isOpen || owner === process.geteuid?.() || owner === 0) return
  throw unusable(path, `everybody may write in ${directory}, and ${found} is user ${owner}'s`)
}

/** Under the lock that kubectl takes. `change` gets what is there, and says what shall be; undefined: no file. */
async function rewrite(
  path: string,
  change: (text: string | undefined) => Promise<string | undefined>,
): Promise<void> {
  const lock = `${path}.lock`
  await takeLock(path, lock)
  try {
    const before = await stat(path).catch(() => undefined)
    if (before !== undefined && before.size > sizeLimitBytes) throw unusable(path, 'it is too long')
    const text = before === undefined ? undefined : await readFileIfPresent(path)
    const wanted = await change(text)
    if (wanted === undefined) return await rm(path, { force: true })
    const mode = before === undefined ? privateMode : before.mode & 0o777 & ~othersPermissions
    if (wanted === text && before !== undefined && (before.mode & 0o777) === mode) return
    const owner = before === undefined ? {} : { owner: { uid: before.uid, gid: before.gid } }
    await writeFileAtomically(path, wanted, { mode, ...owner })
  } finally {
    await rm(lock, { force: true })
  }
}

/** client-go's clientcmd makes the same file, and fails at once when it is there. */
async function takeLock(path: string, lock: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await (await open(lock, 'wx', privateMode)).close()
    } catch (cause) {
      if (errorCode(cause) !== 'EEXIST')
        throw new AppError(`cannot write ${path}`, { code: 'FILE_WRITE', path }, { cause })
      if (attempt < lockAttempts) {
        await sleep(lockIntervalMs)
        continue
      }
      throw new AppError(`cannot change the kubeconfig ${path}: somebody else is changing it`, {
        code: 'KUBECONFIG',
        path,
        remedy: `if nobody is, remove what was left: rm ${lock}`,
      })
    }
  }
}

function unusable(path: string, reason: string): AppError {
  return new AppError(`cannot change the kubeconfig ${path}: ${reason}`, {
    code: 'KUBECONFIG',
    path,
    remedy: 'mend it, or name another file with --write-kubeconfig',
  })
}
