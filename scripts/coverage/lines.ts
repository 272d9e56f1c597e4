import { stripTypeScriptTypes } from 'node:module'

/** The numbers of the lines, from 0, that have something to run: neither types nor comments nor closing brackets alone. */
export function codeLines(text: string): number[] {
  // Types become blanks, so that lines and columns stay.
  const lines = stripTypeScriptTypes(text).split('\n')
  let isComment = false
  return lines.flatMap((line, number) => {
    const trimmed = line.trim()
    if (!isComment && trimmed.startsWith('/*')) isComment = true
    const isOnlyComment = isComment || trimmed.startsWith('//')
    if (isComment && trimmed.includes('*/')) isComment = false
    return isOnlyComment || /^[\s{}()[\];,]*$/.test(trimmed) ? [] : [number]
  })
}

/** Where each line starts. */
export function lineStarts(text: string): number[] {
  const starts = [0]
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) starts.push(at + 1)
  return starts
}
