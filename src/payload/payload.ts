import { readFileSync, existsSync } from 'node:fs'
import { join } from 'node:path'
import { AppError } from '../base/errors.ts'

export type ImageRole = 'pause' | 'volume' | 'coredns' | 'metrics-server' | 'local-path-provisioner'

/** lib/version.json: what the artifact was built from. */
export interface VersionInfo {
  readonly gitVersion: string
  readonly gitCommit: string
  readonly gitTreeState: string
  readonly buildDate: string
  readonly k8sVersion: string
  readonly components: Readonly<Record<string, string>>
  /** Image references by their role; the archives of these are in images/. */
  readonly images: Readonly<Record<ImageRole, string>>
}

/** The files packed inside the artifact, as the launcher unpacked them. */
export interface Payload {
  readonly dir: string
  readonly binDir: string
  readonly cniBinDir: string
  readonly imagesDir: string
  readonly datastoreWorker: URL
  readonly sqliteAddon: string
  /** What a kubelet alone runs with on any machine. */
  readonly standaloneKubelet: string
  readonly version: VersionInfo
  /** The absolute path of an executable: bin('kubelet'). */
  bin(name: string): string
}

/** Opens an unpacked payload; a missing or incomplete one is an error, as nothing can start from it. */
export function openPayload(dir: string | undefined): Payload {
  if (!dir || !existsSync(join(dir, 'lib', 'version.json'))) {
    throw new AppError(`cannot find the components in ${dir ?? 'K8S_PAYLOAD_DIR, which is unset'}`, {
      code: 'PAYLOAD_MISSING',
      remedy:
        'start the built artifact (dist/artifacts/k8s), or set K8S_PAYLOAD_DIR to a tree that `make build` made',
    })
  }
  return {
    dir,
    binDir: join(dir, 'bin'),
    cniBinDir: join(dir, 'bin', 'cni'),
    imagesDir: join(dir, 'images'),
    datastoreWorker: new URL(`file://${join(dir, 'lib', 'datastore-worker.js')}`),
    sqliteAddon: join(dir, 'lib', 'better_sqlite3.node'),
    standaloneKubelet: join(dir, 'lib', 'standalone.yaml'),
    version: JSON.parse(readFileSync(join(dir, 'lib', 'version.json'), 'utf8')) as VersionInfo,
    bin: (name) => join(dir, 'bin', name),
  }
}
