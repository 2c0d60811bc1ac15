import { rmSync } from 'node:fs';
import path from 'node:path';

import { readIfExists, writeAtomically } from './files.js';
import { paths } from './paths.js';

/**
 * A stamp says that a part of the set-up is complete and for which inputs. It is written last, so an
 * installation that was cut short has none and is done again.
 */
const stampFile = (part: string): string => path.join(paths.home, 'setup', `${part}.stamp`);

export const isStamped = (part: string, hash: string): boolean =>
  readIfExists(stampFile(part))?.trim() === hash;

export function stamp(part: string, hash: string): void {
  writeAtomically(stampFile(part), `${hash}\n`);
}

export function unstamp(part: string): void {
  rmSync(stampFile(part), { force: true });
}
