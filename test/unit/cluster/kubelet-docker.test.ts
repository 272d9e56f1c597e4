import { expect, test, vi } from 'vitest'
import type { Logger } from '../../../src/base/logger.ts'
import { settleDocker } from '../../../src/cluster/kubelet/docker.ts'
import { planKubelet } from '../../../src/cluster/kubelet/plan.ts'
import { Rejections } from '../../../src/cluster/kubelet/static-pods.ts'
import type { KubeletContext } from '../../../src/components/component.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import type { KubeletConfig } from '../../../src/config/config.ts'
import { loadAnyConfig } from '../../../src/config/load.ts'
import { criDockerdSocket, paths } from '../../../src/config/paths.ts'
import { detectHost } from '../../../src/node/facts/host.ts'
import { temporaryDirectory } from '../datastore/support.ts'
import { flagsOf, testHost } from '../config/given.ts'

async function configOf(...flags: string[]): Promise<KubeletConfig> {
  const given = { flags: flagsOf(flags), environment: {}, host: testHost, role: 'kubelet' } as const
  return (await loadAnyConfig(given)) as KubeletConfig
}

async function planOf(...flags: string[]) {
  const config = await configOf(...flags)
  const context = {
    ...{ config, paths: paths(config), log: silentLogger, environment: {}, pki: {} },
    ...{ payload: { bin: (name: string) => name, dir: '' }, runtimeSocket: criDockerdSocket },
  } as unknown as KubeletContext
  return planKubelet(context, {
    issueCredentials: async () => {},
    rejections: new Rejections(config.manifests, silentLogger),
  })
}

test('on Docker, cri-dockerd stands before the kubelet in place of containerd', async () => {
  const { components, tasks } = await planOf('--container-runtime=docker')
  expect(components.map(({ name }) => name)).toEqual(['cri-dockerd', 'kubelet'])
  expect(tasks.map(({ name }) => name)).toContain('images')
})

test('otherwise nothing is there of it', async () => {
  const { components } = await planOf()
  expect(components.map(({ name }) => name)).toEqual(['containerd', 'kubelet'])
})

test.each([
  [
    ['--container-runtime=docker', '--container-runtime-endpoint=/run/x.sock'],
    /container-runtime-endpoint.*container-runtime.*leave one of them away/,
  ],
  [['--container-runtime=podman'], /allowed is containerd or docker/],
  [['--docker-endpoint=tcp://127.0.0.1:2375'], /allowed is unix:\/\/\/PATH or \/PATH of Docker's socket/],
  [['--cri-dockerd-arg=docker-endpoint=unix:///x'], /use --docker-endpoint/],
])('%j is refused', async (flags, reason) => {
  await expect(configOf(...flags)).rejects.toThrow(reason)
})

test('a Docker that is away is told with what to do, and waited for', async () => {
  const warn = vi.fn<() => void>()
  const config = await configOf(`--docker-endpoint=${temporaryDirectory()}/none.sock`)
  const settled = await settleDocker(config, {
    host: detectHost(),
    log: { warn, info: () => {} } as unknown as Logger,
  })
  expect(settled.dockerEndpoint).toBe(config.dockerEndpoint)
  expect(warn).toHaveBeenCalledWith(
    expect.objectContaining({
      requirement: 'docker',
      reason: expect.stringContaining('nobody answers as Docker at'),
    }),
    expect.any(String),
  )
})
