import { file } from '../../config/table/kinds.ts'
import type { OptionValues } from '../command.ts'

const group = 'A live etcd'

/** As those of etcdctl. */
export const liveOptions = {
  cacert: {
    group,
    description: 'The authorities of its certificate.',
    kind: file,
    defaultText: "the system's",
  },
  cert: { group, description: 'The certificate to show.', kind: file },
  key: { group, description: 'The key of that certificate.', kind: file },
}

/** Whether an operand is an address, and no file. */
export function isEndpoint(operand: string): boolean {
  return /^https?:\/\//.test(operand)
}

export function tlsFiles({ cacert, cert, key }: OptionValues<typeof liveOptions>) {
  return { caFile: cacert, certFile: cert, keyFile: key }
}
