/*
 * What a machine joins with, one word:
 *
 *    k8s1-agent-<64 hex digits>-<id>.<secret>
 *    k8s1-server-<64 hex digits>-<id>.<secret>-<64 hex digits>
 *     |     |          |           |                 |
 *     |     |          |           |                 what opens the keys of the cluster, which the cluster itself does not know
 *     |     |          |           a bootstrap token of Kubernetes: who joins
 *     |     |          SHA-256 of the public key of the cluster's server authority: whom it joins
 *     |     what it may become
 *     version of this form
 *
 * Nothing here puts a part of what was given into an error: it may be a secret, wherever it stands.
 */
import { randomBytes, randomInt } from 'node:crypto'
import { bootstrappersGroup } from '../../addons/joining.ts'
import { AppError } from '../../base/errors.ts'

/** What a token says of an authority. */
export { authorityHash } from '../../pki/authority-hash.ts'

export const joinRoles = ['agent', 'server'] as const

export type JoinRole = (typeof joinRoles)[number]

/** To which group the API server takes who shows the bootstrap token: that of agents is kubeadm's. */
export const joinGroups: Readonly<Record<JoinRole, string>> = {
  agent: bootstrappersGroup,
  server: 'system:bootstrappers:k8s:servers',
}

/** KEP-130: what a Secret kube-system/bootstrap-token-<id> holds. */
export interface BootstrapToken {
  readonly id: string
  readonly secret: string
}

export interface JoinToken extends BootstrapToken {
  readonly role: JoinRole
  /** 64 hex digits, in lower case. */
  readonly caHash: string
  /** Of a server's: what the bundle is sealed with (server-bundle.ts), 64 hex digits. */
  readonly key?: string
}

const version = 'k8s1'
/** No token is longer; what is longer is not looked at. */
const lengthLimit = 256
const idPattern = /^[a-z0-9]{6}$/
const secretPattern = /^[a-z0-9]{16}$/
/** Of an authority, and of a key. */
const hexPattern = /^[0-9a-f]{64}$/
const form = `${version}-agent-<64 hex digits>-<6 characters>.<16 characters>, or the longer one of a server`
const keyBytes = 32

/** Blanks and line ends around it do not count, as it comes from files. Throws JOIN_TOKEN. */
export function parseToken(text: string): JoinToken {
  const given = bounded(text)
  if (bootstrapParts(given) !== undefined) {
    throw invalid('it is a bootstrap token alone, which does not say which cluster is joined', {
      remedy:
        'give the hash of the authority with it (--ca-hash=sha256:HEX), or use a token as "k8s token create" prints it',
    })
  }
  const [givenVersion, role = '', caHash = '', bootstrap = '', key, ...rest] = given.split('-')
  if (givenVersion !== version) throw invalid(`it does not begin with "${version}-"`)
  if (!isJoinRole(role)) throw invalid(`its second part is neither of ${joinRoles.join(', ')}`)
  if (!hexPattern.test(caHash)) throw invalid('its third part is not a hash of 64 hex digits, in lower case')
  const isAgent = role === 'agent'
  const parts = rest.length === 0 && (!isAgent || key === undefined) ? bootstrapParts(bootstrap) : undefined
  if (parts === undefined) {
    const which = isAgent ? 'last' : 'fourth'
    throw invalid(`its ${which} part is not 6 characters, a dot and 16 characters of a to z and 0 to 9`)
  }
  if (isAgent) return { role, caHash, ...parts }
  if (key === undefined || !hexPattern.test(key))
    throw invalid('its last part is not a key of 64 hex digits, in lower case, as those of servers have')
  return { role, caHash, ...parts, key }
}

export function formatToken(token: JoinToken): string {
  const { role, caHash, key } = token
  return [version, role, caHash, formatBootstrapToken(token), ...(key === undefined ? [] : [key])].join('-')
}

/** ID.SECRET, as kubeadm's users have it. Throws JOIN_TOKEN. */
export function parseBootstrapToken(text: string): BootstrapToken {
  const parts = bootstrapParts(bounded(text))
  if (parts !== undefined) return parts
  throw invalid('it is not 6 characters, a dot and 16 characters of a to z and 0 to 9', {
    remedy: 'use ID.SECRET of a bootstrap token, or a token as "k8s token create" prints it',
  })
}

export function formatBootstrapToken({ id, secret }: BootstrapToken): string {
  return `${id}.${secret}`
}

/** The ID alone, which is no secret. */
export function isTokenId(text: string): boolean {
  return idPattern.test(text)
}

/** sha256:HEX, as kubeadm's --discovery-token-ca-cert-hash has it; 64 hex digits. Throws JOIN_CA_HASH. */
export function parseCaHash(text: string): string {
  const hash = /^sha256:([0-9a-f]{64})$/i.exec(text.trim())?.[1]?.toLowerCase()
  if (hash !== undefined) return hash
  throw new AppError('cannot read the hash of the authority: it is not "sha256:" and 64 hex digits', {
    code: 'JOIN_CA_HASH',
    remedy: 'use what "k8s token create --print-join-command" prints on a server',
  })
}

export function newBootstrapToken(): BootstrapToken {
  return { id: randomText(6), secret: randomText(16) }
}

/** For a token of a server. */
export function newKey(): string {
  return randomBytes(keyBytes).toString('hex')
}

function isJoinRole(text: string): text is JoinRole {
  return joinRoles.some((role) => role === text)
}

function bounded(text: string): string {
  if (text.length > lengthLimit) throw invalid(`it is longer than ${lengthLimit} characters`)
  const given = text.trim()
  if (given === '') throw invalid('it is empty')
  return given
}

function bootstrapParts(text: string): BootstrapToken | undefined {
  const [id = '', secret = '', ...rest] = text.split('.')
  if (rest.length > 0 || !idPattern.test(id) || !secretPattern.test(secret)) return undefined
  return { id, secret }
}

const alphabet = 'abcdefghijklmnopqrstuvwxyz0123456789'

function randomText(length: number): string {
  return Array.from({ length }, () => alphabet[randomInt(alphabet.length)]).join('')
}

function invalid(
  reason: string,
  { remedy = `use one as "k8s token create" prints it: ${form}` } = {},
): AppError {
  return new AppError(`cannot read the token: ${reason}`, { code: 'JOIN_TOKEN', remedy })
}
