/*
 * Requests for certificates (PKCS #10, RFC 2986), as strangers send them: what is read here is decided upon and then
 * signed by kube-controller-manager, whose reader is Go's. So a request is taken only in the one plain form in which
 * kubelets write it, which leaves nothing for two readers to see differently; all else is a reason to refuse it.
 */
import {
  BitString,
  type BaseBlock,
  Constructed,
  fromBER,
  Null,
  ObjectIdentifier,
  OctetString,
  Primitive,
  PrintableString,
  Sequence,
  Set as Asn1Set,
  Utf8String,
} from 'asn1js'
import { createHash, createPublicKey, type KeyObject, verify } from 'node:crypto'
import { AppError } from '../base/errors.ts'
import { formatAddress, parseAddress } from '../base/address.ts'

export interface CertificateRequest {
  readonly commonName: string
  readonly organizations: readonly string[]
  readonly names: readonly string[]
  /** In their shortest form, as Go prints them. */
  readonly addresses: readonly string[]
  /** SHA-256 of the SubjectPublicKeyInfo, 64 hex digits; who sent the request has its private key. */
  readonly keyHash: string
}

/** A kubelet's has 500 to 900 bytes; a Node has few addresses. */
const lengthLimit = 16 << 10

const oid = {
  commonName: '2.5.4.3',
  organization: '2.5.4.10',
  extensionRequest: '1.2.840.113549.1.9.14',
  subjectAltName: '2.5.29.17',
} as const

interface Algorithm {
  readonly key: 'ec' | 'rsa' | 'ed25519'
  /** As node:crypto takes it. */
  readonly digest: string | null
}

/** RFC 5758 section 3.2, RFC 4055 section 5, RFC 8410 section 3. */
const algorithms: Readonly<Record<string, Algorithm>> = {
  '1.2.840.10045.4.3.2': { key: 'ec', digest: 'sha256' },
  '1.2.840.10045.4.3.3': { key: 'ec', digest: 'sha384' },
  '1.2.840.10045.4.3.4': { key: 'ec', digest: 'sha512' },
  '1.2.840.113549.1.1.11': { key: 'rsa', digest: 'sha256' },
  '1.2.840.113549.1.1.12': { key: 'rsa', digest: 'sha384' },
  '1.2.840.113549.1.1.13': { key: 'rsa', digest: 'sha512' },
  '1.3.101.112': { key: 'ed25519', digest: null },
}

/** Throws CERTIFICATE_REQUEST, which says what is wrong, and not what was given. */
export function readCertificateRequest(pem: string): CertificateRequest {
  if (pem.length > lengthLimit) throw refused(`it is longer than ${lengthLimit} bytes`)
  const body =
    /^\s*-----BEGIN CERTIFICATE REQUEST-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE REQUEST-----\s*$/.exec(
      pem,
    )?.[1]
  if (body === undefined) throw refused('it is not one PEM block CERTIFICATE REQUEST')
  try {
    return readDer(Buffer.from(body, 'base64'))
  } catch (error) {
    if (error instanceof AppError) throw error
    // What readers of ASN.1 and of keys say of bytes that are none helps nobody.
    throw refused('it is damaged')
  }
}

/*
 *    SEQUENCE
 *      SEQUENCE              what is signed
 *        INTEGER 0
 *        SEQUENCE            Name
 *        SEQUENCE            SubjectPublicKeyInfo
 *        [0]                 attributes
 *      SEQUENCE              algorithm
 *      BIT STRING            signature
 */
function readDer(der: Buffer): CertificateRequest {
  const { result, offset } = fromBER(der)
  const [signed, algorithm, signature, ...more] = childrenOf(result, Sequence)
  if (offset !== der.length || more.length > 0 || !(signature instanceof BitString))
    throw refused('it is damaged')
  const [, name, spki, attributes, ...others] = childrenOf(signed, Sequence)
  if (name === undefined || spki === undefined || others.length > 0) throw refused('it is damaged')
  const key = createPublicKey({ key: bytesOf(spki), format: 'der', type: 'spki' })
  requireSignature({
    signed: bytesOf(signed),
    key,
    algorithm,
    signature: Buffer.from(signature.valueBlock.valueHexView),
  })
  if (!der.equals(plainForm(signed, algorithm, signature))) throw refused('it is damaged')
  return {
    ...readName(name),
    ...readAttributes(attributes),
    keyHash: createHash('sha256')
      .update(key.export({ type: 'spki', format: 'der' }))
      .digest('hex'),
  }
}

function requireSignature(given: {
  signed: Buffer
  key: KeyObject
  algorithm: BaseBlock | undefined
  signature: Buffer
}): void {
  const { signed, key, algorithm, signature } = given
  const kind = algorithms[identifierOf(childrenOf(algorithm, Sequence)[0])]
  if (kind === undefined || kind.key !== key.asymmetricKeyType)
    throw refused('its key or its signature is of a kind that is not taken')
  if (!verify(kind.digest, signed, key, signature)) throw refused('it is not signed with its own key')
}

/** What is not signed has one form as well: other tags, lengths and unused bits are read by this reader of ASN.1, and not by others. */
function plainForm(
  signed: BaseBlock | undefined,
  algorithm: BaseBlock | undefined,
  { valueBlock }: BitString,
): Buffer {
  const value = identifierOf(childrenOf(algorithm, Sequence)[0])
  const parameters = algorithms[value]?.key === 'rsa' ? [new Null()] : []
  const parts = [
    ...(signed === undefined ? [] : [signed]),
    new Sequence({ value: [new ObjectIdentifier({ value }), ...parameters] }),
    new BitString({ valueHex: valueBlock.valueHexView }),
  ]
  return Buffer.from(new Sequence({ value: parts }).toBER())
}

function readName(name: BaseBlock): Pick<CertificateRequest, 'commonName' | 'organizations'> {
  const commonNames: string[] = []
  const organizations: string[] = []
  for (const set of childrenOf(name, Sequence)) {
    const [attribute, ...more] = childrenOf(set, Asn1Set)
    const [type, value] = childrenOf(attribute, Sequence)
    const kind = identifierOf(type)
    if (more.length > 0) throw refused('its subject has a part of several values')
    if (!(value instanceof Utf8String || value instanceof PrintableString))
      throw refused('its subject has a part that is no text')
    if (kind === oid.commonName) commonNames.push(value.getValue())
    else if (kind === oid.organization) organizations.push(value.getValue())
    else throw refused('its subject has more than names and organizations')
  }
  const [commonName] = commonNames
  if (commonName === undefined || commonNames.length > 1)
    throw refused('its subject has not exactly one name')
  return { commonName, organizations }
}

type AlternativeNames = Pick<CertificateRequest, 'names' | 'addresses'>

function readAttributes(attributes: BaseBlock | undefined): AlternativeNames {
  const found = attributes === undefined ? [] : childrenOf(attributes, Constructed)
  const [attribute, ...more] = found
  if (attribute === undefined) return { names: [], addresses: [] }
  const [type, values] = childrenOf(attribute, Sequence)
  if (more.length > 0 || identifierOf(type) !== oid.extensionRequest)
    throw refused('it has attributes beside its extensions')
  const [extensions, ...others] = childrenOf(values, Asn1Set)
  if (others.length > 0) throw refused('it has its extensions several times')
  const [extension, ...further] = childrenOf(extensions, Sequence)
  if (extension === undefined) return { names: [], addresses: [] }
  const parts = childrenOf(extension, Sequence)
  const contents = parts.at(-1)
  if (
    further.length > 0 ||
    identifierOf(parts[0]) !== oid.subjectAltName ||
    !(contents instanceof OctetString)
  )
    throw refused('it asks for extensions beside its alternative names')
  return readAlternativeNames(Buffer.from(contents.valueBlock.valueHexView))
}

function readAlternativeNames(der: Buffer): AlternativeNames {
  const { result, offset } = fromBER(der)
  if (offset !== der.length) throw refused('it is damaged')
  const names: string[] = []
  const addresses: string[] = []
  for (const entry of childrenOf(result, Sequence)) {
    const { tagClass, tagNumber } = entry.idBlock
    const bytes = entry instanceof Primitive ? Buffer.from(entry.valueBlock.valueHexView) : undefined
    if (tagClass === 3 && tagNumber === 2 && bytes !== undefined) names.push(nameOf(bytes))
    else if (tagClass === 3 && tagNumber === 7 && bytes !== undefined) addresses.push(addressOf(bytes))
    else throw refused('it asks for alternative names that are neither DNS names nor addresses')
  }
  return { names, addresses }
}

function nameOf(bytes: Buffer): string {
  const text = bytes.toString('latin1')
  if (!/^[A-Za-z0-9.*_-]+$/.test(text)) throw refused('it asks for a DNS name that is none')
  return text
}

function addressOf(bytes: Buffer): string {
  if (bytes.length === 4) return bytes.join('.')
  const groups = bytes.toString('hex').match(/.{4}/g)?.join(':') ?? ''
  const address = bytes.length === 16 ? parseAddress(groups) : undefined
  // Go prints one that is mapped from IPv4 as that.
  if (address === undefined || address.bits >> 32n === 0xffffn)
    throw refused('it asks for an address that is none')
  return formatAddress(address)
}

function childrenOf(
  node: BaseBlock | undefined,
  type: typeof Sequence | typeof Asn1Set | typeof Constructed,
): BaseBlock[] {
  if (!(node instanceof type)) throw refused('it is damaged')
  return node.valueBlock.value as BaseBlock[]
}

function identifierOf(node: BaseBlock | undefined): string {
  return node instanceof ObjectIdentifier ? node.getValue() : ''
}

/** As they came, which is what the signature is of. */
function bytesOf(node: BaseBlock | undefined): Buffer {
  return Buffer.from(node?.valueBeforeDecodeView ?? [])
}

function refused(reason: string): AppError {
  return new AppError(`cannot read the request for a certificate: ${reason}`, { code: 'CERTIFICATE_REQUEST' })
}
