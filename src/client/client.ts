/**
 * What commands do at the API server with @kubernetes/client-node: a bundle of its own (scripts/bundle.ts), since the
 * library has five megabytes, which the daemon and every other command would pay for.
 */
export {
  createToken,
  deleteToken,
  deleteTokensOf,
  joinPoint,
  listTokens,
  serverAddresses,
} from './join-tokens.ts'
export { exec } from './exec.ts'
export { loadedEncryption, rewriteSecrets } from './encryption.ts'
export { drainNode, uncordonNode } from './drain.ts'
export { forgetRemoval, removeNode } from './remove-node.ts'
export { nodesAmong, readShared, removeShared, writeShared } from './shared-encryption.ts'
