import { createHash } from 'node:crypto';
import { readFileSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { z } from 'zod';

import { keptAs } from '../setup/paths.js';
import { atLeast, parseVersion, type Version } from '../setup/versions.js';

/** One build of the control worker: what Temporal's worker versioning calls a deployment version. */
export interface Build {
  /** `<release>-<hash of the code>`: equal code has an equal id, wherever it is installed. */
  readonly id: string;
  /** The package's version. */
  readonly release: string;
}

const HASH_LENGTH = 12;
/** `dist` of an installed package, `src` in tests. */
const CODE = fileURLToPath(new URL('..', import.meta.url));
/**
 * What a control worker never loads, as another wording of a command is no other build, and what is made of the rest
 * with paths of the machine in it.
 */
const NOT_CODE = new Set(['cli', 'bundles']);

/**
 * The build that lies in a folder.
 *
 * @param code folder of the compiled code; `package.json` is beside it
 */
export function buildIn(code: string): Build {
  const manifest = readFileSync(path.join(code, '..', 'package.json'), 'utf8');
  const { version } = z.object({ version: z.string() }).parse(JSON.parse(manifest));
  const hash = createHash('sha256').update(`${sdkVersion()}\0`);
  for (const file of filesOf(code)) {
    hash
      .update(`${file}\0`)
      .update(readFileSync(path.join(code, file)))
      .update('\0');
  }
  return { id: `${version}-${hash.digest('hex').slice(0, HASH_LENGTH)}`, release: version };
}

let own: Build | undefined;

/** The build of the calling process. A copy keeps its id, whatever becomes of the libraries that it is linked to. */
export const ownBuild = (): Build =>
  (own ??= keptAs === undefined ? buildIn(CODE) : buildOf(keptAs.build));

/** The release that an id tells, `0.0.0` when it tells none. */
export const releaseOf = (buildId: string): string =>
  /^(.+)-[0-9a-f]+$/u.exec(buildId)?.[1] ?? '0.0.0';

export const buildOf = (id: string): Build => ({ id, release: releaseOf(id) });

/** Whether release `one` is older than release `other`; a pre-release counts as its release. */
export function isOlder(one: string, other: string): boolean {
  const none: Version = [0, 0, 0];
  return !atLeast(parseVersion(one) ?? none, parseVersion(other) ?? none);
}

/** What runs workflows is Temporal's SDK as much as ours. */
function sdkVersion(): string {
  const entry = createRequire(import.meta.url).resolve('@temporalio/workflow/package.json');
  return z.object({ version: z.string() }).parse(JSON.parse(readFileSync(entry, 'utf8'))).version;
}

/** JavaScript (TypeScript in tests) with paths relative to `folder`, in an order that no file system decides. */
function filesOf(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((file) => file.split(path.sep).join('/'))
    .filter((file) => /(?<!\.d)\.(?:js|ts)$/u.test(file) && !NOT_CODE.has(file.split('/')[0] ?? ''))
    .toSorted();
}
