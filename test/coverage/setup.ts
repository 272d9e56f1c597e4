import { takeCoverage } from 'node:v8'
import { afterAll } from 'vitest'

// Vitest ends its processes before they would write what they covered.
afterAll(() => takeCoverage())
