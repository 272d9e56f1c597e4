/** What etcd 3.7.3 has begun a log with. */
export const logHead = Buffer.from(
  [
    ...['0400000000000084', '08041000', '00000000'],
    ...['2000000000000000', '080110c78db6ed031a1608ffec95a0d6e4ad9bf60110e2efa3cfee8fbdc1a201'],
    ...['0e00000000000082', '080510eca0a586', '0f1a0408001000', '0000'],
  ].join(''),
  'hex',
)
export const logHeadClusterId = 0xa282f47ee9e8f7e2n
