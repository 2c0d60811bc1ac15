/**
 * Workflow code as one file for each kind of control worker, the last step of `npm run build`. A worker that makes its
 * bundle itself takes seconds of a processor at each start, and a worker that is lost is waited for.
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { bundleWorkflowCode, DefaultLogger } from '@temporalio/worker';

import { ownBuild } from '../dist/workers/build.js';
import { BUNDLES, INTERCEPTORS, bundleOf, workflowsPath } from '../dist/workers/workflow-code.js';

const build = ownBuild();
rmSync(BUNDLES, { recursive: true, force: true });
mkdirSync(BUNDLES);
for (const versioned of [true, false]) {
  const { code } = await bundleWorkflowCode({
    workflowsPath: workflowsPath(versioned),
    workflowInterceptorModules: [...INTERCEPTORS],
    logger: new DefaultLogger('WARN'),
  });
  writeFileSync(path.join(BUNDLES, bundleOf(build, versioned)), code);
}
