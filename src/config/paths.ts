import { createHash } from 'node:crypto'
import { join } from 'node:path'
import type { StorageSettings } from './settings/storage.ts'

/** sun_path of unix(7) has 108 bytes, the last of which is NUL. */
export const socketPathLimitBytes = 107

/** Where users of cri-dockerd, and tools, look for it. */
export const criDockerdSocket = '/var/run/cri-dockerd.sock'

/** Relative to the run directory; no socket in it has a longer path. */
const longestSocket = 'containerd/containerd.sock.ttrpc'

/** Where everything is that the daemon keeps. Directories end in no slash. */
export interface Paths {
  readonly dataDir: string
  readonly databaseDir: string
  readonly database: string
  /** The data of this server's member of etcd. */
  readonly memberDir: string
  readonly pkiDir: string
  readonly kubeconfigDir: string
  readonly adminKubeconfig: string
  readonly imagesDir: string
  /** Volumes, unless a setting says otherwise. */
  readonly storageDir: string
  /** What is fixed since the cluster was created (facts.ts). */
  readonly clusterFacts: string
  /** What is fixed since this node was, and its last address. */
  readonly nodeRecord: string
  /** The key of an agent's Node, until it has a certificate. */
  readonly joiningKey: string
  /** A restore that is decided, and not carried out yet. */
  readonly restoreDir: string
  /** The unpacked payloads, one directory per artifact. */
  readonly payloadsDir: string
  /** Rendered configuration of the components. */
  readonly etcDir: string
  readonly containerdRoot: string
  /** What cri-dockerd has to know of pods that Docker does not keep. */
  readonly criDockerdRoot: string
  readonly runDir: string
  readonly datastoreSocket: string
  readonly controlSocket: string
  readonly processRecordsDir: string
  /** Which address the daemon keeps on lo, if any: others there are somebody's own. Gone after a reboot, as that is. */
  readonly heldAddress: string
  /** There while something of the network between nodes is in the kernel. Gone after a reboot, as that is. */
  readonly networkMark: string
  /** There while rules of NetworkPolicy are in the kernel; the same. */
  readonly policyMark: string
  readonly containerdState: string
  readonly containerdSocket: string
}

export function restoreDirIn(dataDir: string): string {
  return join(dataDir, 'restore')
}

/** Pure: no file is looked at. */
export function paths({ dataDir }: Pick<StorageSettings, 'dataDir'>): Paths {
  const runDir = runDirectory(dataDir)
  return {
    dataDir,
    databaseDir: join(dataDir, 'db'),
    database: join(dataDir, 'db', 'state.db'),
    memberDir: join(dataDir, 'etcd'),
    pkiDir: join(dataDir, 'pki'),
    kubeconfigDir: join(dataDir, 'kubeconfig'),
    adminKubeconfig: join(dataDir, 'admin.kubeconfig'),
    imagesDir: join(dataDir, 'images'),
    storageDir: join(dataDir, 'storage'),
    clusterFacts: join(dataDir, 'cluster.json'),
    nodeRecord: join(dataDir, 'node.json'),
    joiningKey: join(dataDir, 'joining.key'),
    restoreDir: restoreDirIn(dataDir),
    payloadsDir: join(dataDir, 'data'),
    etcDir: join(dataDir, 'etc'),
    containerdRoot: join(dataDir, 'containerd'),
    criDockerdRoot: join(dataDir, 'cri-dockerd'),
    runDir,
    datastoreSocket: join(runDir, 'datastore.sock'),
    controlSocket: join(runDir, 'control.sock'),
    processRecordsDir: join(runDir, 'processes'),
    heldAddress: join(runDir, 'held-address'),
    networkMark: join(runDir, 'network'),
    policyMark: join(runDir, 'network-policy'),
    containerdState: join(runDir, 'containerd'),
    containerdSocket: join(runDir, 'containerd', 'containerd.sock'),
  }
}

/**
 * run/ below the data directory; where a socket in it would be too long for the kernel,
 * /run/k8s/<first 16 hex digits of the data directory's SHA-256>. The launcher follows the same rule.
 */
function runDirectory(dataDir: string): string {
  const runDir = join(dataDir, 'run')
  if (Buffer.byteLength(join(runDir, longestSocket)) <= socketPathLimitBytes) return runDir
  return join('/run/k8s', createHash('sha256').update(dataDir).digest('hex').slice(0, 16))
}
