import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import type { WorkerOptions } from '@temporalio/worker';

import { ownBuild, type Build } from './build.js';

/** Where `npm run build` puts workflow code as one file each. */
export const BUNDLES = fileURLToPath(new URL('../bundles', import.meta.url));

/** Name of the bundle of a build: that of an older build is never taken for it. */
export const bundleOf = ({ id }: Build, versioned: boolean): string =>
  `${id}-${nameOf(versioned)}.js`;

const nameOf = (versioned: boolean): string => (versioned ? 'versioned' : 'index');

/** Where all workflows are, with the word of those that outlive builds or without. */
export const workflowsPath = (versioned: boolean): string =>
  fileURLToPath(
    new URL(`../workflows/${nameOf(versioned)}${path.extname(import.meta.url)}`, import.meta.url),
  );

/** Part of all workflow code. */
export const INTERCEPTORS: readonly string[] = [
  fileURLToPath(
    new URL(`../workflows/ahead-of-task${path.extname(import.meta.url)}`, import.meta.url),
  ),
];

/**
 * What a worker runs workflows from.
 *
 * @param plain whether it adds nothing to their code: interceptors and failure converters are bundled with it
 * @param interceptors modules with more of them
 */
export function workflowCode(
  versioned: boolean,
  plain: boolean,
  interceptors: readonly string[] = [],
): Pick<WorkerOptions, 'workflowBundle' | 'workflowsPath' | 'interceptors'> {
  const codePath = path.join(BUNDLES, bundleOf(ownBuild(), versioned));
  return plain && existsSync(codePath)
    ? { workflowBundle: { codePath } }
    : {
        workflowsPath: workflowsPath(versioned),
        interceptors: { workflowModules: [...INTERCEPTORS, ...interceptors] },
      };
}
