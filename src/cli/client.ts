import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type * as client from '../client/client.ts'
import { type Invocation, requirePayload } from './command.ts'

/** The commands' client of the API server, from the payload; the types alone are a part of this bundle. */
export async function loadClient({ environment }: Pick<Invocation, 'environment'>): Promise<typeof client> {
  requirePayload(environment)
  const { openPayload } = await import('../payload/payload.ts')
  const { dir } = openPayload(environment['K8S_PAYLOAD_DIR'])
  const bundle = pathToFileURL(join(dir, 'lib', 'client.js')).href
  return (await import(bundle)) as typeof client
}
