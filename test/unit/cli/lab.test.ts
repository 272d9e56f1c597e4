import { describe, expect, test } from 'vitest'
import { runInEmptyDirectory } from './run-cli.ts'

describe('k8s lab', () => {
  test.for([
    ['create', 'Demo', '--lab-dir=DIR'],
    ['create', 'demo-', '--lab-dir=DIR'],
    ['create', '../demo', '--lab-dir=DIR'],
    ['create', 'a-name-of-21-characters', '--lab-dir=DIR'],
    ['create', 'demo', '--agents=21', '--lab-dir=DIR'],
    ['create', 'demo', '--servers=0', '--lab-dir=DIR'],
    ['create', 'demo', '--image=DIR/none.tar', '--lab-dir=DIR'],
    ['create'],
    ['enter'],
  ])('refuses %s, and makes nothing', async (args) => {
    const { code, stdout, stderr, left } = await runInEmptyDirectory({ args: ['lab', ...args] })
    expect({ code, stdout, left }).toEqual({ code: 2, stdout: '', left: [] })
    expect(stderr).toMatch(/^k8s: cannot [^\n]+\n$/)
  })

  test('runs the built artifact, not the sources', async () => {
    const outcome = await runInEmptyDirectory({ args: ['lab', 'create', 'demo', '--lab-dir=DIR'] })
    expect(outcome).toMatchObject({ code: 1, left: [] })
    expect(outcome.stderr).toContain('Call dist/artifacts/k8s')
  })

  test.for([
    [['enter', 'demo-server1'], 'cannot find the node demo-server1: there is no lab. See k8s lab ls'],
    [['cut', 'demo-server1'], 'cannot find the node demo-server1: there is no lab'],
    [['kubeconfig', 'demo'], 'cannot find the lab demo: there is none'],
    [['delete', 'demo'], 'cannot find the lab demo: there is none'],
  ] as const)('%s says what there is', async ([args, words]) => {
    const { code, stderr, left } = await runInEmptyDirectory({ args: ['lab', ...args, '--lab-dir=DIR'] })
    expect({ code, left }).toEqual({ code: 1, left: [] })
    expect(stderr).toContain(words)
  })

  test('ls of none', async () => {
    expect(await runInEmptyDirectory({ args: ['lab', 'ls', '--lab-dir=DIR'] })).toMatchObject({
      code: 0,
      stdout: 'There are no labs in DIR.\n',
    })
    const { stdout } = await runInEmptyDirectory({ args: ['lab', 'ls', '-o=json', '--lab-dir=DIR'] })
    expect(JSON.parse(stdout)).toEqual({ nodes: [] })
  })
})
