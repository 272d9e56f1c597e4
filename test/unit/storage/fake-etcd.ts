import { once } from 'node:events'
import { createServer, type Http2Server, type ServerHttp2Stream } from 'node:http2'
import type { AddressInfo } from 'node:net'
import { onTestFinished } from 'vitest'
import { MessageReader } from '../../../src/datastore/grpc/protobuf/message-reader.ts'
import { MessageWriter } from '../../../src/datastore/grpc/protobuf/message-writer.ts'

export interface FakeMember {
  readonly id: bigint
  name: string
  readonly peerUrl: string
  clientUrl: string
  isLearner: boolean
  /** How far it has what the leader has. */
  applied: bigint
}

/** What the members of an etcd have in common: who is one, and what is refused. */
export class FakeEtcd {
  readonly members: FakeMember[] = []
  /** What each call ended with, in its order. */
  readonly calls: string[] = []
  /** In etcd's words, why it takes no member, has none vote, or lets none go; undefined: it does. */
  refusal: { add?: string; promote?: string; remove?: string } = {}
  /** An add is done, and nobody hears of it. */
  isAddLost = false
  /** Of every key. */
  value: string | undefined
  #lastId = 0n

  /** One that serves at an address of its own. */
  async member(name: string, given: Partial<FakeMember> = {}): Promise<FakeMember & { stop(): void }> {
    const server = createServer()
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const member: FakeMember = {
      ...{ id: ++this.#lastId, name, peerUrl: `https://${name}:2380`, isLearner: false, applied: 1n },
      clientUrl: `http://127.0.0.1:${port}`,
      ...given,
    }
    this.members.push(member)
    const stop = this.#serve(server, member)
    return Object.assign(member, { stop })
  }

  find(name: string): FakeMember | undefined {
    return this.members.find((member) => member.name === name)
  }

  #serve(server: Http2Server, member: FakeMember): () => void {
    const sessions = new Set<{ destroy(): void }>()
    server.on('session', (session) => sessions.add(session))
    server.on('stream', (stream: ServerHttp2Stream, headers) => {
      const parts: Buffer[] = []
      stream.on('error', () => {})
      stream.on('data', (part: Buffer) => parts.push(part))
      stream.on('end', () => {
        const method = String(headers[':path']).split('/').at(-1) ?? ''
        const body = Buffer.concat(parts).subarray(5)
        const answer = this.#answer(method, body, member)
        stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true })
        stream.on('wantTrailers', () =>
          stream.sendTrailers(
            typeof answer === 'string'
              ? { 'grpc-status': '9', 'grpc-message': answer }
              : { 'grpc-status': '0' },
          ),
        )
        stream.end(typeof answer === 'string' ? undefined : answer.framed())
      })
    })
    const stop = () => {
      for (const session of sessions) session.destroy()
      server.close()
    }
    onTestFinished(stop)
    return stop
  }

  #answer(method: string, body: Buffer, member: FakeMember): MessageWriter | string {
    const reply = new MessageWriter()
    const header = new MessageWriter()
    header.bigint(0x08, 99n)
    header.bigint(0x10, member.id)
    reply.bytes(0x0a, header.bytesWritten())
    if (method === 'Range' && this.value !== undefined) {
      const keyValue = new MessageWriter()
      keyValue.text(0x2a, this.value)
      reply.bytes(0x12, keyValue.bytesWritten())
      return reply
    }
    if (method === 'Status') {
      reply.bigint(0x20, 1n)
      reply.bigint(0x38, member.applied)
      return reply
    }
    if (method === 'MemberList') {
      for (const one of this.members) reply.bytes(0x12, written(one))
      return reply
    }
    if (method === 'MemberAdd') return this.#add(body) ?? reply
    if (method === 'MemberPromote') return this.#change('promote', body) ?? reply
    if (method === 'MemberRemove') return this.#change('remove', body) ?? reply
    return reply
  }

  #add(body: Buffer): string | undefined {
    const request = new MessageReader(body)
    let peerUrl = ''
    let isLearner = false
    while (request.next()) {
      if (request.field === 1) peerUrl = request.text()
      else if (request.field === 2) isLearner = request.bool()
      else request.skip()
    }
    const refused = this.refusal.add
    this.calls.push(
      `add ${peerUrl}${isLearner ? ' as a learner' : ''}${refused === undefined ? '' : ` refused`}`,
    )
    if (refused !== undefined) return refused
    this.members.push({ id: ++this.#lastId, name: '', peerUrl, clientUrl: '', isLearner, applied: 0n })
    if (!this.isAddLost) return undefined
    return 'nobody knows'
  }

  #change(verb: 'promote' | 'remove', body: Buffer): string | undefined {
    const request = new MessageReader(body)
    let id = 0n
    while (request.next()) {
      if (request.field === 1) id = request.uint64()
      else request.skip()
    }
    const refused = this.refusal[verb]
    this.calls.push(`${verb} ${id}${refused === undefined ? '' : ' refused'}`)
    if (refused !== undefined) return refused
    const index = this.members.findIndex((member) => member.id === id)
    if (verb === 'remove') this.members.splice(index, 1)
    else (this.members[index] as FakeMember).isLearner = false
    return undefined
  }
}

function written({ id, name, peerUrl, clientUrl, isLearner }: FakeMember): Buffer {
  const writer = new MessageWriter()
  writer.bigint(0x08, id)
  writer.text(0x12, name)
  writer.text(0x1a, peerUrl)
  if (clientUrl !== '') writer.text(0x22, clientUrl)
  writer.bool(0x28, isLearner)
  return writer.bytesWritten()
}
