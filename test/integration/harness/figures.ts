import type { Cluster } from './cluster.ts'

/** What metrics-server says of a node: millicores and memory, each with its share of the node. */
const figures = /^(\S+) +\d+m +\d+% +\d+Mi +\d+%/gm

/**
 * The nodes of which kubectl tells what they use, asked at this server, as soon as there are so many: metrics-server looks twice before it
 * says anything.
 */
export function nodesWithFigures(cluster: Cluster, count: number): Promise<string[]> {
  const told = async () => {
    const { stdout } = await cluster.kubectl(['top', 'nodes', '--no-headers'], { check: false })
    const names = [...stdout.matchAll(figures)].map(([, name = '']) => name)
    return names.length >= count && names
  }
  return cluster.waitFor(`${count} nodes have figures`, told, { timeoutMs: 180_000, intervalMs: 1000 })
}
