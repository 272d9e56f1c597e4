/** Sets of values by a key, of which none is empty. */
export function index<Key, Value>(
  sets: Map<Key, Set<Value>>,
  key: Key,
  value: Value,
  isThere: boolean,
): void {
  const set = sets.get(key)
  if (isThere) {
    if (set === undefined) sets.set(key, new Set([value]))
    else set.add(value)
  } else if (set !== undefined) {
    set.delete(value)
    if (set.size === 0) sets.delete(key)
  }
}
