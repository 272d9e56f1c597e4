import { randomBytes } from 'node:crypto'
import { expect, test } from 'vitest'
import { AppError } from '../../../src/base/errors.ts'
import { readCertificateRequest } from '../../../src/pki/certificate-request.ts'
import {
  address,
  certificateRequest,
  dnsName,
  newKeys,
  nodeSubject,
  type RequestParts,
} from '../../fixtures/certificate-request.ts'

const subject = nodeSubject('a')

test('what a kubelet asks for is read', () => {
  const parts: RequestParts = {
    subject,
    alternatives: [dnsName('a'), address('10.89.0.3'), [7, Buffer.from(`fd00${'0'.repeat(27)}1`, 'hex')]],
  }
  expect(readCertificateRequest(certificateRequest(parts))).toEqual({
    commonName: 'system:node:a',
    organizations: ['system:nodes'],
    names: ['a'],
    addresses: ['10.89.0.3', 'fd00::1'],
    keyHash: expect.stringMatching(/^[0-9a-f]{64}$/) as string,
  })
})

test('a client asks for a name alone, and one key has one hash', () => {
  const keys = newKeys()
  const [one, other] = [certificateRequest({ subject, keys }), certificateRequest({ subject, keys })]
  expect(one).not.toBe(other)
  expect(readCertificateRequest(one)).toEqual(readCertificateRequest(other))
  expect(readCertificateRequest(one)).toMatchObject({ names: [], addresses: [] })
})

test.for<[string, RequestParts | string]>([
  ['it is not one PEM block CERTIFICATE REQUEST', ''],
  [
    'it is not one PEM block CERTIFICATE REQUEST',
    certificateRequest({ subject }) + certificateRequest({ subject }),
  ],
  ['it is not one PEM block CERTIFICATE REQUEST', certificateRequest({ subject }).replaceAll(' REQUEST', '')],
  ['it is longer than 16384 bytes', certificateRequest({ subject }) + ' '.repeat(16 << 10)],
  ['it is damaged', pem(Buffer.alloc(9))],
  ['it is damaged', pem(Buffer.alloc(9000, '30800000', 'hex'))],
  ['it is damaged', pem(Buffer.concat([der(certificateRequest({ subject })), Buffer.alloc(1)]))],
  ['it is not signed with its own key', { subject, signer: newKeys().privateKey }],
  ['its subject has not exactly one name', { subject: [['O', 'system:nodes']] }],
  ['its subject has not exactly one name', { subject: [...subject, ['CN', 'system:node:b']] }],
  ['its subject has more than names and organizations', { subject: [...subject, ['2.5.4.11', 'unit']] }],
  ['it asks for extensions beside its alternative names', { subject, extensions: ['2.5.29.19'] }],
  [
    'it asks for extensions beside its alternative names',
    { subject, alternatives: [dnsName('a')], extensions: ['2.5.29.17'] },
  ],
  ['it asks for a DNS name that is none', { subject, alternatives: [dnsName('a\0.b')] }],
  ['it asks for an address that is none', { subject, alternatives: [[7, Buffer.alloc(5)]] }],
  [
    'it asks for an address that is none',
    { subject, alternatives: [[7, Buffer.from('00000000000000000000ffff0a590003', 'hex')]] },
  ],
  [
    'it asks for alternative names that are neither DNS names nor addresses',
    { subject, alternatives: [[1, Buffer.from('a@b')]] },
  ],
])('%s', ([reason, given]) => {
  const request = typeof given === 'string' ? given : certificateRequest(given)
  expect(reasonOf(request)).toBe(`cannot read the request for a certificate: ${reason}`)
})

test('what is not signed has one form', () => {
  const bytes = der(certificateRequest({ subject }))
  const algorithm = bytes.indexOf('300a06082a8648ce3d040302', 0, 'hex')
  const changes = {
    tag: [0, 0x10],
    algorithmTag: [algorithm, 0x10],
    unusedBits: [algorithm + 14, 1],
  } as const
  for (const [index, value] of Object.values(changes)) {
    const changed = Buffer.from(bytes)
    changed[index] = value
    expect(reasonOf(pem(changed))).toBe('cannot read the request for a certificate: it is damaged')
  }
})

test('bytes that somebody has changed are refused, and nothing else happens', () => {
  const bytes = der(certificateRequest({ subject, alternatives: [dnsName('a'), address('10.0.0.1')] }))
  for (let index = 0; index < bytes.length; index++) {
    const changed = Buffer.from(bytes)
    changed[index] = randomBytes(1)[0] ?? 0
    if (changed.equals(bytes)) continue
    expect(reasonOf(pem(changed))).toMatch(/^cannot read the request for a certificate: /)
    expect(reasonOf(pem(bytes.subarray(0, index)))).toMatch(/^cannot read the request for a certificate: /)
  }
})

function reasonOf(request: string): string {
  try {
    readCertificateRequest(request)
    return 'it was read'
  } catch (error) {
    return error instanceof AppError ? error.message : `not foreseen: ${String(error)}`
  }
}

function der(request: string): Buffer {
  return Buffer.from(request.replaceAll(/-----.*-----/g, ''), 'base64')
}

function pem(bytes: Buffer): string {
  return `-----BEGIN CERTIFICATE REQUEST-----\n${bytes.toString('base64')}\n-----END CERTIFICATE REQUEST-----\n`
}
