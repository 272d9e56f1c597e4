import { directory } from '../../config/table/kinds.ts'

/** Where labs are; each command has it. */
export const labOptions = {
  'lab-dir': {
    group: 'Lab',
    description: 'Where labs are kept.',
    kind: directory,
    default: '/var/lib/k8s-lab',
  },
}

export const labOperand = { placeholder: 'LAB', description: 'the name of the lab' }
