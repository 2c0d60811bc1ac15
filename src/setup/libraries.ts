import { execa } from 'execa';

import { paths } from './paths.js';

/** Shared libraries that vLLM's CPU build is linked against and no wheel brings. */
export const NEEDED_LIBRARIES: readonly string[] =
  process.platform === 'linux' ? ['libnuma.so.1'] : [];

/** How to get them. */
export const LIBRARY_ADVICE =
  'apt-get install libnuma1 (Debian, Ubuntu) or dnf install numactl-libs (Fedora)';

/**
 * The libraries that the dynamic linker does not find.
 *
 * @param python any Python 3; by default that of the environment, which has to be there
 */
export async function missingLibraries(
  libraries: readonly string[] = NEEDED_LIBRARIES,
  python: string = paths.python,
): Promise<string[]> {
  const script = [
    'import ctypes, sys',
    'for name in sys.argv[1:]:',
    '    try: ctypes.CDLL(name)',
    '    except OSError: print(name)',
  ].join('\n');
  const { stdout } = await execa(python, ['-c', script, ...libraries], { reject: false });
  return (stdout ?? '').split('\n').filter((line) => line !== '');
}
