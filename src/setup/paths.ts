import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const folder = fileURLToPath(new URL('../..', import.meta.url));
/** In a copy that a stack keeps of a build: whose copy it is, see `workers/stack/builds.ts`. */
export const KEPT = 'kept.json';
const keptFile = path.join(folder, KEPT);
/** Which build the calling code is a kept copy of; undefined when it is no copy. */
export const keptAs = existsSync(keptFile)
  ? (JSON.parse(readFileSync(keptFile, 'utf8')) as { packageRoot: string; build: string })
  : undefined;
const packageRoot = keptAs?.packageRoot ?? folder;
/** A package manager replaces the whole folder of a package that it has installed. */
const isInstalled = packageRoot.split(path.sep).includes('node_modules');
const home = path.resolve(
  process.env['RANKFLOW_HOME'] ?? path.join(isInstalled ? homedir() : packageRoot, '.rankflow'),
);

/** Where Rankflow keeps what it installs, starts and writes. Everything lies below `home`. */
export const paths = {
  packageRoot,
  pythonProject: path.join(packageRoot, 'python-activities'),
  /** Data folder: `$RANKFLOW_HOME`, else `.rankflow` beside `package.json`, of an installed package in `~`. */
  home,
  bin: path.join(home, 'bin'),
  venv: path.join(home, 'venv'),
  python: path.join(home, 'venv', 'bin', 'python'),
  models: path.join(home, 'models'),
  /** Default store for runs on this machine. */
  store: path.join(home, 'store'),
  stack: path.join(home, 'stack'),
  logs: path.join(home, 'logs'),
  clusters: path.join(home, 'clusters'),
} as const;
