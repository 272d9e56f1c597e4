import type { Version } from './version.ts'

/**
 * Keeps the values of the newest versions in memory, up to a number of bytes: watchers ask for the
 * state before an update, and the keys that change most are those that changed last. A value that is
 * not on disk yet is never dropped.
 */
export class RecentValues {
  readonly #limitBytes: number
  #versions: Version[] = []
  #start = 0
  #bytes = 0

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes
  }

  add(version: Version, committedRevision: number): void {
    this.#versions.push(version)
    this.#bytes += version.value?.length ?? 0
    while (this.#bytes > this.#limitBytes) {
      const oldest = this.#versions[this.#start] as Version
      if (oldest.revision > committedRevision) return
      this.#bytes -= oldest.value?.length ?? 0
      oldest.value = undefined
      this.#start++
    }
    if (this.#start * 2 < this.#versions.length) return
    this.#versions = this.#versions.slice(this.#start)
    this.#start = 0
  }

  clear(): void {
    this.#versions = []
    this.#start = 0
    this.#bytes = 0
  }
}
