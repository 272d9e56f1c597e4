import { newcomers } from '../roles.ts'
import { caHash, file, joinToken, serverUrl } from '../table/kinds.ts'
import type { Rows } from './rows.ts'

const group = 'Joining'

export interface JoinSettings {
  /** https://HOST:PORT */
  readonly server: readonly string[]
  readonly token?: string
  /** Absolute. */
  readonly tokenFile?: string
  /** sha256:HEX */
  readonly caHash?: string
}

export const joinSettings: Rows<JoinSettings> = {
  server: {
    group,
    description:
      'A server of the cluster to join. Once this machine has joined, the cluster itself says which there are, and these are where to look when none of those answers.',
    kind: serverUrl,
    separator: 'comma',
    default: [],
    roles: newcomers,
  },
  token: {
    group,
    description:
      'What this machine joins with; it is not needed any more when it has joined. On a command line other users of the machine can read it: better name a token-file.',
    kind: joinToken,
    defaultText: 'none',
    roles: newcomers,
  },
  'token-file': {
    group,
    description: 'A file with the token.',
    kind: file,
    defaultText: 'none',
    roles: newcomers,
  },
  'ca-hash': {
    group,
    description:
      "The hash of the cluster's authority, as kubeadm's --discovery-token-ca-cert-hash, for a token ID.SECRET, which does not say it.",
    kind: caHash,
    defaultText: 'that in the token',
    roles: newcomers,
  },
}
