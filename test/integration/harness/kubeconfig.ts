import { parse } from 'yaml'
import type { Request } from './http.ts'

/** The identity in a kubeconfig with embedded certificates, and the server's address. */
export function readKubeconfig(text: string): {
  server: string
  identity: Required<Pick<Request, 'ca' | 'cert' | 'key'>>
} {
  const { clusters, users } = parse(text) as {
    clusters: [{ cluster: { server: string; 'certificate-authority-data': string } }]
    users: [{ user: { 'client-certificate-data': string; 'client-key-data': string } }]
  }
  const [{ cluster }] = clusters
  const [{ user }] = users
  return {
    server: cluster.server,
    identity: {
      ca: decode(cluster['certificate-authority-data']),
      cert: decode(user['client-certificate-data']),
      key: decode(user['client-key-data']),
    },
  }
}

function decode(base64: string): string {
  return Buffer.from(base64, 'base64').toString()
}
