import { CoreV1Api, type V1Secret } from '@kubernetes/client-node'
import { isStatus } from '../base/errors.ts'
import { ask, connect, find } from './connection.ts'

/** Servers write their entries at the same time. */
const writesLimit = 20

/** Where it is, and under which key of its data. */
export interface SharedPlace {
  readonly namespace: string
  readonly name: string
  readonly key: string
}

/** The data of the Secret, in base64; empty: it is not there. */
export async function readShared(
  kubeconfig: string,
  { namespace, name }: SharedPlace,
): Promise<Readonly<Record<string, string>>> {
  const api = connect(kubeconfig).makeApiClient(CoreV1Api)
  const secret = await find('read what the servers share', () =>
    api.readNamespacedSecret({ name, namespace }),
  )
  return secret?.data ?? {}
}

/** Writes one of its texts, and leaves the others. */
export async function writeShared(kubeconfig: string, place: SharedPlace, value: Buffer): Promise<void> {
  const { namespace, name, key } = place
  const api = connect(kubeconfig).makeApiClient(CoreV1Api)
  const purpose = 'write what the servers share'
  for (let attempt = 1; ; attempt++) {
    const found = await find(purpose, () => api.readNamespacedSecret({ name, namespace }))
    const body: V1Secret = {
      metadata: found?.metadata ?? { namespace, name },
      data: { ...found?.data, [key]: value.toString('base64') },
    }
    try {
      await ask(purpose, () =>
        found === undefined
          ? api.createNamespacedSecret({ namespace, body })
          : api.replaceNamespacedSecret({ name, namespace, body }),
      )
      return
    } catch (error) {
      if (!isStatus(error, 409) || attempt === writesLimit) throw error
    }
  }
}

/** The names of those of them that are Nodes. */
export async function nodesAmong(kubeconfig: string, names: readonly string[]): Promise<string[]> {
  const api = connect(kubeconfig).makeApiClient(CoreV1Api)
  const found = await Promise.all(
    names.map(async (name) => (await find(`read the Node ${name}`, () => api.readNode({ name }))) && name),
  )
  return found.filter((name) => name !== undefined)
}

/** Of a cluster of one server, which goes by its file alone: what is left there of several would be of long ago. */
export async function removeShared(kubeconfig: string, { namespace, name }: SharedPlace): Promise<void> {
  const api = connect(kubeconfig).makeApiClient(CoreV1Api)
  await find('remove what servers shared', () => api.deleteNamespacedSecret({ name, namespace }))
}
