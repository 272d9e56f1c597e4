import { describe, expect, test } from 'vitest'
import {
  isLabelValue,
  isNodeName,
  isQualifiedName,
  parseLabel,
  parseTaint,
} from '../../../src/config/table/kubernetes-names.ts'
import { Refused } from '../../../src/config/table/option.ts'

const long = (length: number) => 'a'.repeat(length)

test.each([
  ['a', true],
  ['worker-1.example.com', true],
  [long(63), true],
  [long(64), false],
  ['-a', false],
  ['a-', false],
  ['a..b', false],
  ['a_b', false],
  ['A', false],
  ['', false],
])('node name %j: %s', (text, expected) => {
  expect(isNodeName(text)).toBe(expected)
})

test.each([
  ['disk', true],
  ['Disk_1.x', true],
  ['example.com/disk', true],
  [`${long(63)}.com/${long(63)}`, true],
  [long(64), false],
  ['Example.com/disk', false],
  ['example.com/', false],
  ['/disk', false],
  ['a/b/c', false],
  ['-disk', false],
])('label key %j: %s', (text, expected) => {
  expect(isQualifiedName(text)).toBe(expected)
})

test.each([
  ['', true],
  ['v1.0_x-Y', true],
  ['-x', false],
  ['a b', false],
  [long(64), false],
])('label value %j: %s', (text, expected) => {
  expect(isLabelValue(text)).toBe(expected)
})

describe('a label', () => {
  test.each([
    'disk=ssd',
    'disk=',
    'example.com/disk=ssd',
    'topology.kubernetes.io/zone=a',
    'node.kubernetes.io/anything=x',
    'sub.node.kubernetes.io/anything=x',
    'kubelet.kubernetes.io/x=y',
    'notkubernetes.io/x=y',
  ])('%s is allowed', (text) => {
    expect(parseLabel(text)).toBe(text)
  })

  test.each([
    'disk',
    '=ssd',
    'disk=a=b',
    'kubernetes.io/x=y',
    'node-role.kubernetes.io/control-plane=',
    'x.k8s.io/y=z',
    'node-restriction.kubernetes.io/x=y',
  ])('%s is refused', (text) => {
    expect(parseLabel(text)).toBeInstanceOf(Refused)
  })
})

describe('a taint', () => {
  test.each([
    'key=value:NoSchedule',
    'key:NoExecute',
    'key=:PreferNoSchedule',
    'example.com/key=v:NoSchedule',
  ])('%s is allowed', (text) => {
    expect(parseTaint(text)).toBe(text)
  })

  test.each([
    'key',
    'key=value',
    'key=value:',
    ':NoSchedule',
    'key=value:noschedule',
    'key=a:b:NoSchedule',
    'key:NoSchedule-',
    '',
  ])('%j is refused', (text) => {
    expect(parseTaint(text)).toBeInstanceOf(Refused)
  })
})
