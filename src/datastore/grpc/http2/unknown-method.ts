import { StatusError, codes } from '../status.ts'
import type { Method, Methods } from './call.ts'

/** Answers as grpc-go does for what it does not know (server.go, handleStream), whatever messages follow. */
export function unknownMethod(path: string, methods: Methods): Method {
  const at = path.lastIndexOf('/')
  const service = path.slice(1, Math.max(at, 1))
  return {
    kind: 'streaming',
    open() {
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
