import type { Command } from './command.ts'
import { tokenCreate } from './token/create.ts'
import { tokenDelete } from './token/delete.ts'
import { tokenList } from './token/list.ts'

/** `k8s token ...` */
export const tokenCommands: readonly Command[] = [tokenCreate, tokenList, tokenDelete]
