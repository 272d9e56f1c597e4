import { nftablesKernel } from '../facts/choices.ts'

/** What README.md names as requirements, in numbers; a test holds both together. */
export const minimums = {
  kernel: { major: 5, minor: 10 },
  /** iptables mode needs no more than `kernel`. */
  nftablesKernel,
  memoryGibibytes: 2,
  /** The unpacked artifact takes 0.5 GiB, images and a young cluster as much. */
  diskGibibytes: 2,
} as const
