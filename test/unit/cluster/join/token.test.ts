import { createHash, generateKeyPairSync } from 'node:crypto'
import { expect, test } from 'vitest'
import { AppError } from '../../../../src/base/errors.ts'
import {
  authorityHash,
  formatBootstrapToken,
  formatToken,
  isTokenId,
  type JoinToken,
  newBootstrapToken,
  newKey,
  parseBootstrapToken,
  parseCaHash,
  parseToken,
} from '../../../../src/cluster/join/token.ts'
import { encodeName, issueCertificate, keyIdentifier } from '../../../../src/pki/certificate.ts'

const caHash = '0123456789abcdef'.repeat(4)
const secret = '0123456789abcdef'
const token: JoinToken = { role: 'agent', caHash, id: 'abcdef', secret }
const text = `k8s1-agent-${caHash}-abcdef.${secret}`
const key = 'fedcba9876543210'.repeat(4)
const serverText = `k8s1-server-${caHash}-abcdef.${secret}-${key}`

test('a token is one word, and reads back', () => {
  expect(formatToken(token)).toBe(text)
  expect(parseToken(text)).toEqual(token)
  expect(parseToken(` ${text}\r\n`)).toEqual(token)
  expect(formatToken({ ...token, role: 'server', key })).toBe(serverText)
  expect(parseToken(serverText)).toEqual({ ...token, role: 'server', key })
  expect(newKey()).toMatch(/^[0-9a-f]{64}$/)
})

test.for([
  ['', 'it is empty'],
  ['\n', 'it is empty'],
  [`k8s1-agent-${caHash}-abcdef.${secret}${' '.repeat(300)}`, 'it is longer than 256 characters'],
  [`abcdef.${secret}`, 'it is a bootstrap token alone, which does not say which cluster is joined'],
  [`K10${caHash}::server:${secret}`, 'it does not begin with "k8s1-"'],
  [`k8s2-agent-${caHash}-abcdef.${secret}`, 'it does not begin with "k8s1-"'],
  [`k8s1-root-${caHash}-abcdef.${secret}`, 'its second part is neither of agent, server'],
  [
    `k8s1-agent-${caHash.slice(1)}-abcdef.${secret}`,
    'its third part is not a hash of 64 hex digits, in lower case',
  ],
  [
    `k8s1-agent-${caHash.toUpperCase()}-abcdef.${secret}`,
    'its third part is not a hash of 64 hex digits, in lower case',
  ],
  ...[
    'abcdef',
    `abcdef.${secret}0`,
    `abcde.${secret}`,
    `abcdeF.${secret}`,
    `abcdef.${secret}.x`,
    `abcdef.${secret}-x`,
  ].map((last) => [
    `k8s1-agent-${caHash}-${last}`,
    'its last part is not 6 characters, a dot and 16 characters of a to z and 0 to 9',
  ]),
  [
    text.replace('agent', 'server'),
    'its last part is not a key of 64 hex digits, in lower case, as those of servers have',
  ],
  [
    serverText.slice(0, -1),
    'its last part is not a key of 64 hex digits, in lower case, as those of servers have',
  ],
  [
    serverText.replace(`.${secret}`, '.'),
    'its fourth part is not 6 characters, a dot and 16 characters of a to z and 0 to 9',
  ],
  [`${serverText}-x`, 'its fourth part is not 6 characters, a dot and 16 characters of a to z and 0 to 9'],
  [`${text}-${key}`, 'its last part is not 6 characters, a dot and 16 characters of a to z and 0 to 9'],
] as [string, string][])('a token that is none is told without its secret: %s', ([given, reason]) => {
  const message = messageOf(() => parseToken(given))
  expect(message).not.toContain(key.slice(0, 32))
  expect(message).toBe(`cannot read the token: ${reason}`)
  expect(message).not.toContain(secret)
})

test('the bootstrap token alone reads with a hash beside it', () => {
  expect(parseBootstrapToken(`abcdef.${secret}\n`)).toEqual({ id: 'abcdef', secret })
  expect(formatBootstrapToken(token)).toBe(`abcdef.${secret}`)
  expect(parseCaHash(`sha256:${caHash.toUpperCase()}`)).toBe(caHash)
  expect(messageOf(() => parseBootstrapToken(text))).toMatch(/^cannot read the token: it is not 6 characters/)
  expect(messageOf(() => parseCaHash(caHash))).toMatch(/^cannot read the hash of the authority/)
})

test('new tokens are well-formed, and differ', () => {
  const made = Array.from({ length: 100 }, newBootstrapToken)
  for (const one of made) expect(parseBootstrapToken(formatBootstrapToken(one))).toEqual(one)
  expect(new Set(made.map((one) => one.secret)).size).toBe(100)
  expect(made.every(({ id }) => isTokenId(id))).toBe(true)
  expect(isTokenId('../abc')).toBe(false)
})

test('the hash is that of the public key, as kubeadm and openssl take it', () => {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const subject = { commonName: 'an authority' }
  const certificate = issueCertificate({
    profile: { subject },
    publicKey,
    issuer: { privateKey, name: encodeName(subject), keyId: keyIdentifier(publicKey) },
    notBefore: new Date('2026-01-01'),
    notAfter: new Date('2036-01-01'),
  })
  const spki = publicKey.export({ type: 'spki', format: 'der' })
  expect(authorityHash(certificate)).toBe(createHash('sha256').update(spki).digest('hex'))
})

function messageOf(parse: () => unknown): string {
  try {
    parse()
  } catch (error) {
    return error instanceof AppError ? error.message : `not foreseen: ${String(error)}`
  }
  return 'nothing was thrown'
}
