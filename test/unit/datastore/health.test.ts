import { join } from 'node:path'
import { expect, test } from 'vitest'
import { RawClient, message, runDatastore, temporaryDirectory } from './support.ts'

const serving = message({ 1: 1 })

test('the health of the server as a whole is told, and watched until the client has enough', async () => {
  const datastore = await runDatastore({ path: join(temporaryDirectory(), 'state.db') })
  const client = new RawClient(datastore.listening)
  expect(await client.unary('/grpc.health.v1.Health/Check', message({}))).toEqual(serving)
  await expect(client.unary('/grpc.health.v1.Health/Check', message({ 1: 'kv' }))).rejects.toMatchObject({
    code: 5,
    details: 'unknown service',
  })
  const watch = client.stream('/grpc.health.v1.Health/Watch')
  watch.on('error', () => undefined)
  const first = new Promise<Buffer>((resolve) => watch.once('data', resolve))
  watch.write(message({}))
  watch.end()
  expect(await first).toEqual(serving)
  watch.cancel()
})
