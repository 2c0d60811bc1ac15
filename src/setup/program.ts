import { existsSync, realpathSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

/**
 * Whether a module is what Node.js was started with. Node.js names modules by where they really are, and the program as
 * it was called: the data folder may be a link to a larger disk.
 *
 * @param module its `import.meta.url`
 * @param program the path that Node.js was given
 */
export const isProgram = (module: string, program = process.argv[1]): boolean =>
  program !== undefined &&
  existsSync(program) &&
  module === pathToFileURL(realpathSync(program)).href;
