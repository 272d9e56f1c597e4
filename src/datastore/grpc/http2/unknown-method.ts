import { StatusError, codes } from '../status.ts'
import type { Methods } from './call.ts'

/** Answers as grpc-go does for what it does not know (server.go, handleStream). */
export function unknownMethod(path: string, methods: Methods): { kind: 'unary'; handle(): never } {
  const at = path.lastIndexOf('/')
  const service = path.slice(1, Math.max(at, 1))
  return {
    kind: 'unary',
    handle() {
      if (!path.startsWith('/') || at === 0) {
        throw new StatusError(codes.unimplemented, `malformed method name: ${JSON.stringify(path)}`)
      }
      const isKnown = [...methods.keys()].some((known) => known.startsWith(`/${service}/`))
      throw new StatusError(
        codes.unimplemented,
        isKnown
          ? `unknown method ${path.slice(at + 1)} for service ${service}`
          : `unknown service ${service}`,
      )
    },
  }
}
