import type { Command } from './command.ts'
import { encryptionRotate } from './secrets-encryption/rotate.ts'
import { encryptionStatus } from './secrets-encryption/status.ts'

/** `k8s secrets-encryption ...` */
export const encryptionCommands: readonly Command[] = [encryptionStatus, encryptionRotate]
