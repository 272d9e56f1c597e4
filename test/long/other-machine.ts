import { copyFileSync, writeFileSync } from 'node:fs'
import { renderContainerdConfig } from '../../src/node/render/containerd-config.ts'
import { payloadsOf } from '../integration/harness/cluster.ts'
import { busyboxArchive, packedImageName } from '../integration/harness/images.ts'
import type { ExecOptions, Machine, Running } from '../integration/harness/machine.ts'
import { waitFor } from '../integration/harness/wait.ts'

/** A machine that is not of this distribution, with a containerd and the images of the tests. */
export class OtherMachine implements AsyncDisposable {
  readonly machine: Machine
  readonly bin: string
  readonly #containerd: Running

  private constructor(machine: Machine, bin: string, containerd: Running) {
    this.machine = machine
    this.bin = bin
    this.#containerd = containerd
  }

  static readonly criSocket = '/run/containerd/containerd.sock'

  /** Brings what a package manager would. */
  static async prepare(machine: Machine): Promise<OtherMachine> {
    // Unpacks the artifact, of which only programs of upstream are used here.
    await machine.exec(['k8s', 'crictl', '--version'])
    const bin = `${payloadsOf(machine)[0]}/bin`
    // Of the host's, which machines share, nothing is written to.
    await machine.exec(['mount', '-t', 'tmpfs', 'tmpfs', '/opt'])
    const directories = ['/etc/containerd', '/etc/cni/net.d', '/opt/cni/bin', '/var/lib/kubelet']
    await machine.exec(['mkdir', '-p', ...directories])
    await machine.exec(['mount', '--bind', '/var/lib/kubelet', '/var/lib/kubelet'])
    await machine.exec(['mount', '--make-rshared', '/var/lib/kubelet'])
    const config = renderContainerdConfig({
      ...{ root: '/var/lib/containerd', state: '/run/containerd', socket: OtherMachine.criSocket },
      ...{ dropInDir: '/etc/containerd/conf.d', snapshotter: 'native', pauseImage: packedImageName('pause') },
      ...{ shim: `${bin}/containerd-shim-runc-v2`, runc: `${bin}/runc` },
      ...{ cniBinDirs: ['/opt/cni/bin'], cniConfDir: '/etc/cni/net.d' },
      ...{ cgroupDriver: 'cgroupfs', canLowerOomScore: false },
    })
    // As others have it, containers that ask for it are started again.
    const withRestarts = config.replace(/^ *"io\.containerd\.monitor\.container\.v1\.restart",\n/m, '')
    writeFileSync(machine.path('/etc/containerd/config.toml'), withRestarts)
    const env = { PATH: `${bin}:/usr/sbin:/usr/bin:/sbin:/bin` }
    const containerd = machine.spawn(['containerd', '--config=/etc/containerd/config.toml'], { env })
    const made = new OtherMachine(machine, bin, containerd)
    await waitFor(
      'containerd answers',
      async () => (await made.ctr(['version'], { check: false })).exitCode === 0,
    )
    copyFileSync(busyboxArchive, machine.path('/tmp/busybox.tar.zst'))
    for (const archive of ['/tmp/busybox.tar.zst', `${bin}/../images/pause.tar.zst`])
      await made.ctr(['--namespace=k8s.io', 'images', 'import', archive])
    return made
  }

  get env() {
    return { PATH: `${this.bin}:/usr/sbin:/usr/bin:/sbin:/bin` }
  }

  ctr(arguments_: readonly string[], options?: ExecOptions) {
    return this.machine.exec(['ctr', `--address=${OtherMachine.criSocket}`, ...arguments_], {
      ...options,
      env: this.env,
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#containerd[Symbol.asyncDispose]()
  }
}
