import { describeError } from '../../base/errors.ts'
import { type DockerFacts, readDocker } from '../facts/docker.ts'
import type { HostFiles } from '../facts/host-files.ts'
import { type Mount, mountOf } from '../facts/mounts.ts'
import { missing, ok, type Requirement, warning } from './requirement.ts'

/** cri-dockerd's own minimum (core/docker_service.go): Docker 23. */
const oldestApi = [1, 42] as const

/** What pods on Docker rest on, as the machine, or the container that this runs in, has it. */
export interface DockerSurroundings {
  readonly dockerSocket: string
  readonly kubeletRootDir: string
  readonly mounts: readonly Mount[]
  readonly files: HostFiles
}

/** Asks Docker, and looks. */
export async function dockerRequirements(surroundings: DockerSurroundings): Promise<Requirement[]> {
  const { dockerSocket } = surroundings
  try {
    return judgeDocker(await readDocker(dockerSocket), surroundings)
  } catch (error) {
    return [
      missing(
        'docker',
        `nobody answers as Docker at ${dockerSocket}: ${describeError(error)}`,
        inContainer(surroundings)
          ? flag(`-v /var/run/docker.sock:${dockerSocket}`)
          : 'start Docker, or name its socket with --docker-endpoint',
      ),
    ]
  }
}

/** Pure but for files. */
export function judgeDocker(docker: DockerFacts, surroundings: DockerSurroundings): Requirement[] {
  const all = [
    engine(docker, surroundings),
    ...(inContainer(surroundings) ? container(docker, surroundings) : []),
  ]
  return all.flatMap((requirement) => requirement ?? [])
}

function engine({ version, apiVersion }: DockerFacts, { dockerSocket }: DockerSurroundings): Requirement {
  const name = 'docker'
  const detail = `${version} at ${dockerSocket}, API ${apiVersion}`
  const [major = 0, minor = 0] = apiVersion.split('.').map(Number)
  const isOld = major < oldestApi[0] || (major === oldestApi[0] && minor < oldestApi[1])
  return isOld
    ? missing(name, `${detail}: cri-dockerd wants ${oldestApi.join('.')}`, 'use Docker 23 or newer')
    : ok(name, detail)
}

/** What the short `docker run` leaves out, each with what is off without it. */
function container(docker: DockerFacts, surroundings: DockerSurroundings): (Requirement | undefined)[] {
  const { files } = surroundings
  return [
    files.exists('/dev/kmsg')
      ? undefined
      : missing('kernel messages', 'there is no /dev/kmsg, which the kubelet reads', flag('--privileged')),
    dockerRoot(docker, surroundings),
    kubeletDirectory(surroundings),
    isOfContainer(surroundings, podLogs)
      ? warning('pod logs', `${podLogs} is this container's own: logs are lost with it`, flag(bind(podLogs)))
      : undefined,
    seesDocker(files)
      ? undefined
      : warning(
          'processes',
          'those of the host are not seen: no port-forward, and no pods with network-plugin=cni',
          flag('--pid=host'),
        ),
    docker.bridge === undefined || files.exists(`/sys/class/net/${docker.bridge}`)
      ? undefined
      : warning(
          'network',
          `the host's is not seen (${docker.bridge}): the kubelet's port is this container's, and probes of pods of the host's network reach this container`,
          flag('--network=host'),
        ),
  ]
}

const podLogs = '/var/log/pods'

/** Logs of pods are links into it. */
function dockerRoot({ rootDir }: DockerFacts, surroundings: DockerSurroundings): Requirement | undefined {
  if (surroundings.files.exists(`${rootDir}/containers`) && !isOfContainer(surroundings, rootDir))
    return undefined
  return warning(
    'docker directory',
    `${rootDir} of the host is not here: logs of pods cannot be read, and the space of images is not known`,
    flag(bind(rootDir)),
  )
}

/** Docker binds volumes by their paths on the host, and sees what is mounted here if that is shared. */
export function kubeletDirectory(surroundings: DockerSurroundings): Requirement | undefined {
  const { kubeletRootDir, mounts } = surroundings
  const name = 'kubelet directory'
  const remedy = flag(`${bind(kubeletRootDir)}:rshared`)
  if (isOfContainer(surroundings, kubeletRootDir)) {
    return warning(
      name,
      `${kubeletRootDir} is this container's own: volumes of pods are empty, and their /etc/hosts is the image's`,
      remedy,
    )
  }
  if (mountOf(mounts, kubeletRootDir)?.isShared === true) return undefined
  return warning(
    name,
    `${kubeletRootDir} is not a shared mount: volumes that are mounts (tmpfs, secrets, CSI) are empty in pods`,
    remedy,
  )
}

/** Docker and Podman leave a mark in each container. */
export function inContainer({ files }: Pick<DockerSurroundings, 'files'>): boolean {
  return ['/.dockerenv', '/run/.containerenv'].some((mark) => files.exists(mark))
}

/** Nobody else sees what is there. */
export function isOfContainer({ mounts, files }: DockerSurroundings, path: string): boolean {
  return inContainer({ files }) && mountOf(mounts, files.realPath(path))?.path === '/'
}

function seesDocker(files: HostFiles): boolean {
  return files
    .list('/proc')
    .some((name) => /^\d+$/.test(name) && files.read(`/proc/${name}/comm`) === 'dockerd\n')
}

const bind = (path: string): string => `-v ${path}:${path}`
const flag = (text: string): string => `docker run ... ${text}`
