/**
 * Formats, lints and type-checks both languages and lints the Dockerfile: `npm run check`. Every tool runs, so that one call shows
 * all there is to mend. With `--fix` (`npm run format`) it formats and mends what can be mended first.
 *
 * Needs `npm run build` and, for Python, `npm run setup`.
 */
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { execa } from 'execa';

import { paths } from '../dist/setup/paths.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const fix = process.argv.includes('--fix');
const inPython = path.join(root, 'python-activities');
/** Benchmark, examples and scripts of jobs lie outside the Python project and keep its rules. */
const ruffed = [
  ...['--quiet', '--config', 'pyproject.toml'],
  ...['.', '../bench', '../examples', '../test/cluster/jobs'],
];
const tool = (name) => path.join(paths.venv, 'bin', name);

/** What prettier formats; the lock file and generated schema have formats of their own. */
const FORMATTED = [
  '{src,test,chaos,scripts,bench,docs}/**/*.{ts,js,md}',
  'deploy/**/*.{json,yml}',
  '*.{json,md,yml}',
  '!package-lock.json',
  '.oxlintrc.json',
];

const prettier = ['--log-level', 'warn', '--no-error-on-unmatched-pattern', ...FORMATTED];
const checks = [
  ['prettier', 'prettier', [fix ? '--write' : '--check', ...prettier], root],
  ['oxlint', 'oxlint', ['--type-aware', '--deny-warnings', ...(fix ? ['--fix'] : [])], root],
  ['tsc', 'tsc', ['--noEmit'], root],
  [
    'contracts',
    process.execPath,
    ['scripts/generate-contracts.js', ...(fix ? [] : ['--check'])],
    root,
  ],
  [
    'cluster schema',
    process.execPath,
    ['scripts/generate-cluster-schema.js', ...(fix ? [] : ['--check'])],
    root,
  ],
  ...(fix ? [['ruff check --fix', tool('ruff'), ['check', '--fix', ...ruffed], inPython]] : []),
  ['ruff format', tool('ruff'), ['format', ...(fix ? [] : ['--check']), ...ruffed], inPython],
  ['ruff check', tool('ruff'), ['check', ...ruffed], inPython],
  ['hadolint', tool('hadolint'), ['Dockerfile'], root],
  // Pyright takes the interpreter, and with it all packages, from the environment it is told.
  ['pyright', tool('pyright'), ['--pythonpath', paths.python], inPython],
];

let failed = 0;
for (const [name, command, args, cwd] of checks) {
  const started = Date.now();
  const { failed: bad, all } = await execa(command, args, {
    cwd,
    all: true,
    reject: false,
    preferLocal: true,
    localDir: root,
  });
  if (bad) failed += 1;
  const seconds = ((Date.now() - started) / 1000).toFixed(1);
  console.log(`${bad ? 'FAILED' : 'ok    '} ${String(name)} (${seconds} s)`);
  if (bad) console.log(all || 'the tool could not be started: run `npm run setup`');
}
if (failed > 0) {
  console.error(`${failed} of ${checks.length} checks failed; \`npm run format\` mends formats.`);
  process.exitCode = 1;
}
