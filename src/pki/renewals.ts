import { basename } from 'node:path'
import { allDone } from '../base/all-done.ts'
import { narrowMode, privateMode, publicMode, readFileIfPresent, writeTogether } from '../base/files.ts'
import {
  type Authority,
  authorityFiles,
  authorityWarning,
  type KeyPairFiles,
  requirePlausibleClock,
} from './authority.ts'
import { issueLeaf, type Leaf, renewalOf } from './leaves.ts'

interface Renewal {
  /** Of the files, without their ending. */
  readonly name: string
  /** The end of "renewed because ...". */
  readonly reason: string
}

/** What could not be written, while the certificate that is there can still be used. */
interface PutOff extends Renewal {
  readonly cause: unknown
}

export interface Renewals {
  /** What this call issued; on a first start everything. */
  readonly renewed: readonly Renewal[]
  /** What is to be issued as soon as it can be. */
  readonly putOff: readonly PutOff[]
  /** A sentence for each authority that ends within a year. */
  readonly warnings: readonly string[]
}

interface WantedLeaf {
  readonly name: string
  readonly leaf: Leaf
  readonly files: KeyPairFiles
}

/** Issues anew what does not fit or is not valid now, and narrows the modes of keys. */
export async function renewLeaves(given: {
  wanted: readonly WantedLeaf[]
  authorities: readonly Authority[]
  now: Date
}): Promise<Renewals> {
  const { authorities, now } = given
  const due = await findRenewals(given)
  if (due.length > 0) requirePlausibleClock(now)
  const putOff: PutOff[] = []
  await allDone(
    due.map(async ({ name, reason, canWait, ...wanted }) => {
      try {
        await writeLeaf({ ...wanted, authorities, now })
      } catch (cause) {
        if (!canWait) throw cause
        putOff.push({ name, reason, cause })
      }
    }),
  )
  const warnings = authorities.map((authority) => authorityWarning(authority, now))
  const issued = due.filter(({ name }) => !putOff.some((late) => late.name === name))
  const renewed = [
    ...authorities.flatMap(authorityRenewal),
    ...issued.map(({ name, reason }) => ({ name, reason })),
  ]
  return { renewed, putOff, warnings: warnings.filter((warning) => warning !== undefined) }
}

function authorityRenewal({ name, renewedBecause: reason }: Authority): Renewal[] {
  return reason === undefined ? [] : [{ name: basename(authorityFiles('', name).certFile, '.crt'), reason }]
}

async function findRenewals({
  wanted,
  authorities,
  now,
}: {
  wanted: readonly WantedLeaf[]
  authorities: readonly Authority[]
  now: Date
}): Promise<(WantedLeaf & { readonly reason: string; readonly canWait: boolean })[]> {
  const found = await Promise.all(
    wanted.map(async ({ name, leaf, files }) => {
      const [certificatePem, keyPem] = await Promise.all([
        readFileIfPresent(files.certFile),
        readFileIfPresent(files.keyFile),
      ])
      if (keyPem !== undefined) await narrowMode(files.keyFile, privateMode)
      const authority = authorityOf(authorities, leaf)
      const renewal = renewalOf({ leaf, authority, certificatePem, keyPem, now })
      return renewal === undefined ? undefined : { name, leaf, files, ...renewal }
    }),
  )
  return found.filter((renewal) => renewal !== undefined)
}

/** One that a power cut damages is issued anew at the next start, so nobody waits for the disk. */
async function writeLeaf(given: {
  files: KeyPairFiles
  leaf: Leaf
  authorities: readonly Authority[]
  now: Date
}): Promise<void> {
  const { files, leaf, authorities, now } = given
  const { certificate, key } = issueLeaf(leaf, authorityOf(authorities, leaf), now)
  await writeTogether([
    { path: files.keyFile, contents: key, mode: privateMode, durable: 'nothing' },
    { path: files.certFile, contents: certificate, mode: publicMode, durable: 'nothing' },
  ])
}

function authorityOf(authorities: readonly Authority[], leaf: Leaf): Authority {
  const authority = authorities.find(({ name }) => name === leaf.authority)
  if (authority === undefined) throw new Error(`bug: no authority ${leaf.authority}`)
  return authority
}
