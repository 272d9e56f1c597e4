/**
 * Makes what bare.sh starts with: the same certificates and configuration files that the daemon would
 * make, so that only the starting is compared. Runs inside the machine: node prepare-bare.ts DIRECTORY
 */
import { silentLogger } from '../../src/base/logger.ts'
import { prepareCredentials } from '../../src/cluster/credentials.ts'
import { prepareDirectories } from '../../src/cluster/directories.ts'
import { planNodeFiles } from '../../src/cluster/node-files.ts'
import { loadConfig } from '../../src/config/load.ts'
import { paths as pathsOf } from '../../src/config/paths.ts'
import { openPayload } from '../../src/payload/payload.ts'
import { pkiFiles } from '../../src/pki/pki.ts'

const [directory = '', payloadDir] = process.argv.slice(2)
const config = await loadConfig({ flags: [{ name: 'data-dir', text: directory }], environment: {} })
const paths = pathsOf(config)
await prepareDirectories(paths)
await prepareCredentials({ config, paths, log: silentLogger })
await planNodeFiles({ config, paths, payload: openPayload(payloadDir), pki: pkiFiles(paths.pkiDir) }).write()
