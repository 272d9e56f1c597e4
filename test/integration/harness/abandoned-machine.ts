/** A runner that makes a machine with a busy process in it and waits to be killed; forked by a test. */
import { Machine } from './machine.ts'

const machine = await Machine.create({ name: 'abandoned', program: '' })
machine.spawn(['sleep', '1000'])
process.send?.({ id: machine.id, directory: machine.directory })
