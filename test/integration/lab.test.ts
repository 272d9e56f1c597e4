import { copyFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { busyboxArchive } from './harness/images.ts'
import { Machine } from './harness/machine.ts'

// k8s lab, on a machine of its own: a lab makes links and cgroups beside those of its host.

test('a lab of one server is made, used, cut, healed and removed without a trace', async () => {
  await using machine = await Machine.create({ name: 'lab' })
  const k8s = (line: string, timeoutMs = 240_000) =>
    machine.exec(['bash', '-c', `k8s ${line}`], { timeoutMs, check: false })
  const links = async () => (await machine.exec(['ip', '-o', 'link'])).stdout
  const groups = async () =>
    (await machine.exec(['bash', '-c', 'find /sys/fs/cgroup -maxdepth 2 -name "k8s-lab-*"'])).stdout
  const linksBefore = await links()

  const created = await k8s('lab create demo')
  expect(created).toMatchObject({ exitCode: 0, stderr: '' })
  expect((await k8s('lab create demo')).stderr).toContain('there is one of that name')
  expect((await k8s('lab ls')).stdout).toMatch(/^demo +demo-server1 +server +10\.89\.89\.2 +running$/m)
  const entered = await machine.exec(['k8s', 'lab', 'enter', 'demo-server1'], {
    stdin: 'hostname\nk8s status\n',
  })
  expect(entered.stdout).toMatch(/^demo-server1\n/)
  const { stdout: nodes } = await machine.exec([
    'bash',
    '-c',
    'KUBECONFIG=/var/lib/k8s-lab/demo/kubeconfig k8s kubectl get nodes -o name',
  ])
  expect(nodes).toBe('node/demo-server1\n')

  await k8s('lab cut demo-server1')
  expect((await k8s('lab ls')).stdout).toContain('cut off')
  const asked = () =>
    k8s('kubectl --kubeconfig=/var/lib/k8s-lab/demo/kubeconfig --request-timeout=2s get --raw=/livez')
  expect((await asked()).exitCode).toBe(1)
  await k8s('lab heal demo-server1')
  expect((await asked()).stdout).toBe('ok')

  expect(await k8s('lab delete demo')).toMatchObject({ exitCode: 0, stdout: 'Deleted demo.\n' })
  expect(await links()).toBe(linksBefore)
  expect(await groups()).toBe('')
  expect((await machine.exec(['ls', '/var/lib/k8s-lab'])).stdout).toBe('')
  expect((await k8s('lab delete demo')).stderr).toContain('there is none')
})

test('pods of a lab with agents reach each other by a Service, and the lab ends with all of them', async () => {
  await using machine = await Machine.create({ name: 'lab-agents' })
  const run = async (line: string) => {
    const command = `export KUBECONFIG=/var/lib/k8s-lab/demo/kubeconfig; ${line}`
    return (await machine.exec(['bash', '-c', command], { timeoutMs: 300_000 })).stdout
  }
  copyFileSync(busyboxArchive, machine.path('/var/lib/busybox.tar.zst'))
  expect(await run('k8s lab create demo --agents=2 --image=/var/lib/busybox.tar.zst')).toContain(
    'all 3 nodes are Ready',
  )
  const image = 'k8s.local/busybox:1'
  await run(
    `k8s kubectl create deployment hello --image=${image} --replicas=6 -- httpd -f -p 8080 -h /etc
     k8s kubectl rollout status deployment hello --timeout=120s
     k8s kubectl expose deployment hello --port=80 --target-port=8080`,
  )
  const places = await run(`k8s kubectl get pods -o jsonpath='{.items[*].spec.nodeName}'`)
  expect(new Set(places.split(' '))).toEqual(new Set(['demo-server1', 'demo-agent1', 'demo-agent2']))
  // From one pod, whatever pod answers.
  const asked = await run(
    `k8s kubectl run client -i --rm --restart=Never --image=${image} -- sh -c 'for i in 1 2 3 4 5 6 7 8; do wget -qO- http://hello/hostname; done'`,
  )
  expect(asked.match(/^hello-\S+$/gm)).toHaveLength(8)
  expect(await run('echo k8s status | k8s lab enter demo-agent1')).toContain('Node demo-agent1 is Ready')
  expect(await run('k8s lab delete demo')).toBe('Deleted demo.\n')
  expect(await run('pgrep -c kubelet || true')).toBe('0\n')
})
