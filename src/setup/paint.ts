import { isatty } from 'node:tty';

import pc from 'picocolors';

/**
 * Colours for people. Only on a terminal: picocolors by itself also paints what a CI job writes into a file or a
 * pipe, where a script that looks for a word misses it. NO_COLOR (no-color.org) and FORCE_COLOR decide before that.
 */
export const paint = pc.createColors(coloured());

function coloured(): boolean {
  const { NO_COLOR, FORCE_COLOR, TERM } = process.env;
  if (NO_COLOR) return false;
  if (FORCE_COLOR) return FORCE_COLOR !== '0';
  return TERM !== 'dumb' && isatty(1) && isatty(2);
}
