/** A kubelet may be so much older than the API server: kubernetes.io/releases/version-skew-policy. */
const olderLimit = 3

/** Why a kubelet must not speak to an API server of that version; undefined: it may. Pure. */
export function refusalOfSkew({
  kubelet,
  server,
}: {
  kubelet: string
  server: string
}): { reason: string; remedy: string } | undefined {
  const [own, other] = [minorOf(kubelet), minorOf(server)]
  if (own === undefined || other === undefined)
    return {
      reason: `its version is ${server.slice(0, 50)}, which cannot be compared with ${kubelet}`,
      remedy: 'look whether the server is one of k8s, or of kubeadm',
    }
  const reason = `this machine has ${kubelet}, and the servers ${server.slice(0, 50)}`
  if (own > other) return { reason, remedy: 'a node must not be newer than its servers: upgrade those first' }
  if (other - own > olderLimit)
    return {
      reason,
      remedy: `a node is at most ${olderLimit} minor versions older: upgrade this machine first`,
    }
  return undefined
}

/** The same of servers of one cluster: none may differ by more than one minor version. */
export function refusalOfServerSkew({
  own,
  server,
}: {
  own: string
  server: string
}): { reason: string; remedy: string } | undefined {
  const [ownMinor, minor] = [minorOf(own), minorOf(server)]
  if (ownMinor !== undefined && minor !== undefined && Math.abs(ownMinor - minor) <= 1) return undefined
  return {
    reason: `this machine has ${own}, and the server ${server.slice(0, 50)}`,
    remedy: 'servers of one cluster are at most one minor version apart: take a nearer one',
  }
}

/** Of v1.MINOR: Kubernetes 2 is another program. */
function minorOf(version: string): number | undefined {
  const digits = /^v1\.(\d{1,4})\./.exec(version)?.[1]
  return digits === undefined ? undefined : Number(digits)
}
