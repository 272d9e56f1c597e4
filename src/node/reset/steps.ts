/** A program to start; a failure is reported and spares the other steps. */
interface CommandStep {
  readonly kind: 'command'
  readonly description: string
  readonly command: string
  readonly args: readonly string[]
}

/** A network interface to delete. */
interface LinkStep {
  readonly kind: 'link'
  readonly description: string
  readonly name: string
}

/** What leads to other nodes' pods. */
interface NetworkStep {
  readonly kind: 'network'
  readonly description: string
}

/** An address of the Node that is kept on lo. */
interface AddressStep {
  readonly kind: 'address'
  readonly description: string
  readonly address: string
}

/** `save` prints the rules, `keepForeignRules` drops ours, `restore` reads them from its standard input. */
interface RulesStep {
  readonly kind: 'rules'
  readonly description: string
  readonly save: string
  readonly restore: string
}

/** A kubeconfig that a user named, out of which this cluster is taken. */
interface KubeconfigStep {
  readonly kind: 'kubeconfig'
  readonly description: string
  readonly path: string
  /** Whose entries go. */
  readonly dataDir: string
  readonly id: string | undefined
}

/** Nothing to do: it is only told. */
interface KeepStep {
  readonly kind: 'keep'
  readonly description: string
}

export type FileStep =
  /** Something mounted; tried again for a while, as long as it is in use. */
  | { readonly kind: 'unmount'; readonly description: string; readonly path: string }
  /** Sent SIGKILL and awaited, if it is still the process that the plan saw. */
  | { readonly kind: 'kill'; readonly description: string; readonly pid: number; readonly startTicks: number }
  /** A cgroup with those below it. */
  | { readonly kind: 'cgroup'; readonly description: string; readonly path: string }
  /** A file or a tree; refused while something is mounted in it. */
  | { readonly kind: 'remove'; readonly description: string; readonly path: string }
  /** What is in a directory that stays, as somebody's link leads to it; refused as above. */
  | { readonly kind: 'empty'; readonly description: string; readonly path: string }
  /** A directory, if it is empty by then. */
  | { readonly kind: 'rmdir'; readonly description: string; readonly path: string }

export type ResetStep =
  | CommandStep
  | LinkStep
  | NetworkStep
  | AddressStep
  | RulesStep
  | KubeconfigStep
  | KeepStep
  | FileStep
