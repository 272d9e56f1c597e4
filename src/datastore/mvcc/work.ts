import { MvccError } from './errors.ts'

/** What one request may still do: it is done in one turn, while all others wait. */
export class Work {
  #left: number

  constructor(limit: number) {
    this.#left = limit
  }

  spend(count: number): void {
    this.#left -= count
    if (this.#left < 0) throw new MvccError('too-many-keys')
  }
}
