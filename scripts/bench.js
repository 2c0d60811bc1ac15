/** `npm run bench`: the benchmark in the environment that `npm run setup` made. See `bench/__main__.py`. */
import path from 'node:path';

import { execa } from 'execa';

import { paths } from '../dist/setup/paths.js';

const { exitCode } = await execa(
  paths.python,
  ['-m', 'bench', '--home', paths.home, ...process.argv.slice(2)],
  {
    cwd: paths.packageRoot,
    env: {
      PYTHONPATH: [paths.packageRoot, paths.pythonProject].join(path.delimiter),
      PATH: [paths.bin, process.env.PATH].join(path.delimiter),
    },
    stdio: 'inherit',
    reject: false,
  },
);
process.exitCode = exitCode ?? 1;
