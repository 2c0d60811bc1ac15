import { CONTROL_QUEUE, PYTHON_QUEUE, fleetQueue } from '../../src/contracts/names.js';
import { type FakeRun, SPEC_HASH } from './fake-run.js';
import type { Harness } from './harness.js';

type Python = FakeRun['python'];

/** Serves whatever run there is when an activity is called: workers live longer than one test. */
export async function serveRun(harness: Harness, current: () => FakeRun): Promise<void> {
  await harness.serve(CONTROL_QUEUE, {});
  await harness.serve(PYTHON_QUEUE, {
    planRun: async (input: Parameters<Python['planRun']>[0]) => current().python.planRun(input),
    rankProgress: async (input: Parameters<Python['rankProgress']>[0]) =>
      current().python.rankProgress(input),
    finalizeRun: async (input: Parameters<Python['finalizeRun']>[0]) =>
      current().python.finalizeRun(input),
    checkStoreRoom: async (input: Parameters<Python['checkStoreRoom']>[0]) =>
      current().python.checkStoreRoom(input),
  });
  await harness.serve(fleetQueue('fleet', SPEC_HASH), {
    generateBatch: async (input: Parameters<FakeRun['generateBatch']>[0]) =>
      current().generateBatch(input),
  });
}
