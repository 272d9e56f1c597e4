/*
 * X.509 certificates (RFC 5280), encoded with asn1js. @peculiar/x509, which stands on the same encoder,
 * costs the daemon 67 ms at its start and 16 MB for as long as it runs, against 5 to 10 ms and 1.2 MB.
 * Keys, signatures and the reading of certificates are node:crypto's.
 */
import {
  BitString,
  Boolean as Asn1Boolean,
  Constructed,
  fromBER,
  GeneralizedTime,
  Integer,
  Null,
  ObjectIdentifier,
  OctetString,
  Primitive,
  Sequence,
  Set as Asn1Set,
  UTCTime,
  Utf8String,
} from 'asn1js'
import { createPublicKey, type KeyObject, randomBytes, sign } from 'node:crypto'
import { AppError } from '../base/errors.ts'
import { addressBytes } from './addresses.ts'

/** Kubernetes takes CN as the user and every O as one of its groups. */
export interface Subject {
  readonly commonName: string
  readonly organizations?: readonly string[]
}

/** A peer serves its like, and is their client. */
export type Usage = 'server' | 'client' | 'peer'

/** What a certificate says of its holder. */
export interface Profile {
  readonly subject: Subject
  /** undefined: an authority's own certificate. */
  readonly usage?: Usage
  readonly names?: readonly string[]
  readonly addresses?: readonly string[]
}

/** Who signs: its private key, and from its certificate the encoded subject and key identifier. */
export interface Issuer {
  readonly privateKey: KeyObject
  /** DER of the issuer's Name. */
  readonly name: Buffer
  readonly keyId: Buffer | undefined
}

const [serverAuth, clientAuth] = ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2']

export const usageOids: Readonly<Record<Usage, readonly string[]>> = {
  server: [serverAuth],
  client: [clientAuth],
  peer: [serverAuth, clientAuth],
}

const oid = {
  commonName: '2.5.4.3',
  organization: '2.5.4.10',
  subjectKeyIdentifier: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  authorityKeyIdentifier: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37',
} as const

/** RFC 5758 section 3.2 (parameters absent) and RFC 4055 section 5 (parameters NULL). */
const signatureAlgorithms: Readonly<Record<string, () => Sequence>> = {
  ec: () => sequence(new ObjectIdentifier({ value: '1.2.840.10045.4.3.2' })),
  rsa: () => sequence(new ObjectIdentifier({ value: '1.2.840.113549.1.1.11' }), new Null()),
}

/** A random positive number; RFC 5280 section 4.1.2.2 allows 20 bytes. */
const serialBytes = 16

interface CertificateRequest {
  readonly profile: Profile
  readonly publicKey: KeyObject
  readonly issuer: Issuer
  readonly notBefore: Date
  readonly notAfter: Date
}

/** Signs a certificate; PEM. */
export function issueCertificate(request: CertificateRequest): string {
  const { issuer, publicKey, profile } = request
  const algorithm = signatureAlgorithms[issuer.privateKey.asymmetricKeyType ?? '']
  if (algorithm === undefined) {
    throw new AppError(`cannot sign with a key of type ${issuer.privateKey.asymmetricKeyType}`, {
      code: 'PKI_KEY_TYPE',
      remedy: 'use an authority with an ECDSA or RSA key',
    })
  }
  const body = sequence(
    new Constructed({ idBlock: { tagClass: 3, tagNumber: 0 }, value: [new Integer({ value: 2 })] }),
    serialNumber(),
    algorithm(),
    encoded(issuer.name),
    sequence(time(request.notBefore), time(request.notAfter)),
    encoded(encodeName(profile.subject)),
    encoded(publicKey.export({ type: 'spki', format: 'der' })),
    new Constructed({
      idBlock: { tagClass: 3, tagNumber: 3 },
      value: [sequence(...extensions({ profile, publicKey, issuer }))],
    }),
  ).toBER()
  const signed = Buffer.from(body)
  const signature = sign('sha256', signed, issuer.privateKey)
  const der = sequence(encoded(signed), algorithm(), new BitString({ valueHex: signature })).toBER()
  return pem('CERTIFICATE', Buffer.from(der))
}

/** Asks for a certificate of that subject (PKCS #10, RFC 2986), as a kubelet does; PEM. The key is an ECDSA one. */
export function requestCertificate({ subject, key }: { subject: Subject; key: KeyObject }): string {
  const body = sequence(
    new Integer({ value: 0 }),
    encoded(encodeName(subject)),
    encoded(createPublicKey(key).export({ type: 'spki', format: 'der' })),
    new Constructed({ idBlock: { tagClass: 3, tagNumber: 0 }, value: [] }),
  ).toBER()
  const signed = Buffer.from(body)
  const signature = new BitString({ valueHex: sign('sha256', signed, key) })
  const der = sequence(encoded(signed), signatureAlgorithms['ec']!(), signature).toBER()
  return pem('CERTIFICATE REQUEST', Buffer.from(der))
}

/** What an issuer's certificate lends to those it signs. */
export function issuerOf({ der, privateKey }: { der: Buffer; privateKey: KeyObject }): Issuer {
  const toBeSigned = child(decode(der), 0)
  const subject = child(toBeSigned, 5)
  const extensionList = child(children(toBeSigned).at(-1), 0)
  const identifier = children(extensionList).find(
    (extension) => text(child(extension, 0)) === oid.subjectKeyIdentifier,
  )
  const encodedKeyId = identifier && child(identifier, children(identifier).length - 1)
  return {
    privateKey,
    name: Buffer.from(subject.toBER()),
    // The extension's OCTET STRING holds another one: two bytes of header, then the identifier.
    keyId: encodedKeyId instanceof OctetString ? Buffer.from(encodedKeyId.getValue()).subarray(2) : undefined,
  }
}

/** RFC 5280's Name: organizations first, as node:crypto and Go print it. */
export function encodeName({ commonName, organizations = [] }: Subject): Buffer {
  const attribute = (type: string, value: string) =>
    new Asn1Set({ value: [sequence(new ObjectIdentifier({ value: type }), new Utf8String({ value }))] })
  const attributes = [
    ...organizations.map((organization) => attribute(oid.organization, organization)),
    attribute(oid.commonName, commonName),
  ]
  return Buffer.from(sequence(...attributes).toBER())
}

/**
 * The last 160 bits of the encoded key: as unique as the key, which is all that RFC 5280 section 4.2.1.2
 * asks for, and without the hash that its two examples need, whose first use costs node:crypto 5 ms.
 */
export function keyIdentifier(publicKey: KeyObject): Buffer {
  return publicKey.export({ type: 'spki', format: 'der' }).subarray(-20)
}

export function pem(label: string, der: Buffer): string {
  const lines = der.toString('base64').match(/.{1,64}/g) ?? []
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`
}

function extensions(certificate: { profile: Profile; publicKey: KeyObject; issuer: Issuer }): Sequence[] {
  const { profile, publicKey, issuer } = certificate
  const { usage, names = [], addresses = [] } = profile
  const list = [
    extension(oid.basicConstraints, basicConstraints(usage === undefined), { critical: true }),
    extension(oid.keyUsage, keyUsage(usage === undefined), { critical: true }),
    extension(oid.subjectKeyIdentifier, new OctetString({ valueHex: keyIdentifier(publicKey) })),
  ]
  if (issuer.keyId !== undefined) {
    list.push(extension(oid.authorityKeyIdentifier, sequence(contextPrimitive(0, issuer.keyId))))
  }
  if (usage !== undefined) {
    const oids = usageOids[usage].map((value) => new ObjectIdentifier({ value }))
    list.push(extension(oid.extendedKeyUsage, sequence(...oids)))
  }
  if (names.length + addresses.length > 0) {
    const entries = [
      ...names.map((name) => contextPrimitive(2, Buffer.from(name, 'ascii'))),
      ...addresses.map((address) => contextPrimitive(7, requireAddress(address))),
    ]
    list.push(extension(oid.subjectAltName, sequence(...entries)))
  }
  return list
}

function extension(id: string, value: Encodable, { critical = false } = {}): Sequence {
  const parts: Encodable[] = [new ObjectIdentifier({ value: id })]
  if (critical) parts.push(new Asn1Boolean({ value: true }))
  return sequence(...parts, new OctetString({ valueHex: value.toBER() }))
}

/** An authority signs leaves only: pathLenConstraint 0. */
function basicConstraints(isAuthority: boolean): Sequence {
  return isAuthority ? sequence(new Asn1Boolean({ value: true }), new Integer({ value: 0 })) : sequence()
}

/** digitalSignature (bit 0); an authority also keyCertSign (5) and cRLSign (6). */
function keyUsage(isAuthority: boolean): BitString {
  return isAuthority
    ? new BitString({ valueHex: Uint8Array.of(0b1000_0110), unusedBits: 1 })
    : new BitString({ valueHex: Uint8Array.of(0b1000_0000), unusedBits: 7 })
}

function requireAddress(address: string): Buffer {
  const bytes = addressBytes(address)
  if (bytes === undefined) throw new Error(`bug: ${address} is no address`)
  return bytes
}

/** The top bit is cleared to keep it positive, the next one set to keep its encoding minimal. */
function serialNumber(): Integer {
  const bytes = randomBytes(serialBytes)
  bytes[0] = ((bytes[0] ?? 0) & 0x3f) | 0x40
  return new Integer({ valueHex: bytes })
}

/** RFC 5280 section 4.1.2.5: UTCTime through 2049, GeneralizedTime after, no fractions of a second. */
function time(date: Date): Encodable {
  const valueDate = new Date(Math.floor(date.getTime() / 1000) * 1000)
  return date.getUTCFullYear() < 2050 ? new UTCTime({ valueDate }) : new GeneralizedTime({ valueDate })
}

type Encodable = { toBER(): ArrayBuffer }
type Parts = NonNullable<ConstructorParameters<typeof Sequence>[0]>['value']

function sequence(...parts: readonly Encodable[]): Sequence {
  return new Sequence({ value: parts as unknown as NonNullable<Parts> })
}

/** A SEQUENCE that is encoded already, taken as it is: decoding it only to encode it again costs 1 ms. */
function encoded(der: Buffer): Primitive {
  const headerBytes = (der[1] ?? 0) < 0x80 ? 2 : 2 + ((der[1] ?? 0) & 0x7f)
  const node = new Primitive({ idBlock: { tagClass: 1, tagNumber: 16 }, valueHex: der.subarray(headerBytes) })
  node.idBlock.isConstructed = true
  return node
}

function decode(der: Buffer): Encodable {
  return fromBER(der).result
}

function contextPrimitive(tagNumber: number, valueHex: Buffer): Primitive {
  return new Primitive({ idBlock: { tagClass: 3, tagNumber }, valueHex })
}

function children(node: unknown): Encodable[] {
  return node instanceof Constructed ? (node.valueBlock.value as unknown as Encodable[]) : []
}

function child(node: unknown, index: number): Encodable {
  const found = children(node)[index]
  if (found === undefined) throw new Error('bug: a certificate that node:crypto read has no such part')
  return found
}

function text(node: unknown): string {
  return node instanceof ObjectIdentifier ? node.getValue() : ''
}
