/**
 * Prints the proportional set size, in bytes, of each component of a bare cluster 60 s after its node was Ready, as JSON:
 *
 *   node bench/start/memory.ts PAYLOAD_DIRECTORY
 */
import { measureMemory } from './contestants.ts'

const [payload] = process.argv.slice(2)
if (payload === undefined) {
  console.error('usage: node bench/start/memory.ts PAYLOAD_DIRECTORY')
  process.exit(2)
}
console.log(JSON.stringify(Object.fromEntries(await measureMemory(payload))))
