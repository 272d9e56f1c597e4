import type { Log } from '../log/log.ts'

/** How often it is looked whether a full disk has room again. */
const lookIntervalMs = 5000

/** Why writes are refused: the disk (or its owner's share of it) is full, the quota is reached, or a client said so. */
export type AlarmCause = 'disk' | 'quota' | 'request'

/** What is on disk. Earlier versions of this program knew no cause, and took only the last of these for an alarm. */
const values = { none: '0', disk: 'disk', other: '1' } as const

/**
 * The alarm NOSPACE. It stays over restarts, and until a client disarms it; but one that a full disk has raised is lowered
 * once something can be written there again.
 */
export class SpaceAlarm {
  readonly #log: Pick<Log, 'readMeta' | 'appendMeta' | 'tryRoom'>
  readonly #onChange: (cause: AlarmCause | undefined) => void
  #cause: AlarmCause | undefined
  /** It was raised when nothing could be written. */
  #isUnsaved = false
  #timer: NodeJS.Timeout | undefined

  constructor(options: {
    log: Pick<Log, 'readMeta' | 'appendMeta' | 'tryRoom'>
    onChange: (cause: AlarmCause | undefined) => void
  }) {
    this.#log = options.log
    this.#onChange = options.onChange
    const found = this.#log.readMeta('no_space') ?? values.none
    if (found !== values.none) this.#cause = found === values.disk ? 'disk' : 'quota'
    this.#watchDisk()
  }

  /** Undefined where there is none. */
  get cause(): AlarmCause | undefined {
    return this.#cause
  }

  raise(cause: AlarmCause): void {
    if (this.#cause !== undefined) return
    this.#set(cause)
    this.#save()
  }

  lower(): void {
    if (this.#cause === undefined) return
    this.#set(undefined)
    this.#save()
  }

  /** A commit was lost for want of space. An alarm of another cause stays what it is. */
  diskIsFull(): void {
    this.#isUnsaved = true
    if (this.#cause === undefined) this.#set('disk')
  }

  /** A commit has reached the disk. */
  diskHasRoom(): void {
    if (this.#isUnsaved) this.#save()
  }

  stop(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  #set(cause: AlarmCause | undefined): void {
    this.#cause = cause
    this.#watchDisk()
    this.#onChange(cause)
  }

  #save(): void {
    this.#isUnsaved = false
    this.#log.appendMeta('no_space', valueOf(this.#cause))
  }

  #watchDisk(): void {
    this.stop()
    if (this.#cause !== 'disk') return
    this.#timer = setInterval(() => {
      this.#log.tryRoom((hasRoom) => {
        if (hasRoom && this.#cause === 'disk') this.lower()
      })
    }, lookIntervalMs).unref()
  }
}

function valueOf(cause: AlarmCause | undefined): string {
  if (cause === undefined) return values.none
  return cause === 'disk' ? values.disk : values.other
}
