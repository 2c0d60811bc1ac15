import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';

import type { FinalizeRunResult, RunSpec } from '../contracts/run.js';
import { ClientError } from './errors.js';
import type { PreparedRun } from './inference.js';
import { type Parameters, runParameters } from './identity.js';

/** Results of a finished run, as its store holds them. */
export interface StoredResult {
  readonly state: 'completed' | 'cancelled' | 'expired';
  readonly output: FinalizeRunResult;
}

interface StoredPlan {
  readonly spec: RunSpec;
  readonly summary: { readonly inputSha256: string };
}

/** The fields of `manifest.json` that are needed here. */
type Manifest = Pick<StoredResult, 'state'> & Omit<FinalizeRunResult, `${string}Uri`>;

/** Parameters of the plan in a local store; undefined when there is none, or the store is a bucket. */
export function plannedParameters(run: PreparedRun): Parameters | undefined {
  const { store, runId } = run.inference.run;
  const plan = readStored(store, runId, 'plan.json') as StoredPlan | undefined;
  if (plan === undefined) return undefined;
  // Where the store is says nothing about a plan that was found in it: a store can be moved.
  const spec = { ...plan.spec, store };
  return runParameters(spec, run.inputSha256 && plan.summary.inputSha256);
}

/** The results in a local store; undefined when it has none (yet), or the store is a bucket. */
export function storedResult(store: string, runId: string): StoredResult | undefined {
  const manifest = readStored(store, runId, 'manifest.json') as Manifest | undefined;
  if (manifest === undefined) return undefined;
  const { state, rows, succeeded, failed, promptTokens, completionTokens } = manifest;
  const folder = path.join(store, 'runs', runId);
  const output = {
    ...{ rows, succeeded, failed, promptTokens, completionTokens },
    outputUri: path.join(folder, 'output.jsonl'),
    errorsUri: path.join(folder, 'errors.jsonl'),
    manifestUri: path.join(folder, 'manifest.json'),
  };
  return { state, output };
}

/** Whether the results of a run are still in its store; a bucket is trusted to keep them. */
export const hasResults = (store: string, runId: string): boolean =>
  store.includes('://') || existsSync(path.join(store, 'runs', runId, 'manifest.json'));

function readStored(store: string, runId: string, name: string): unknown {
  const file = path.join(store, 'runs', runId, name);
  if (store.includes('://') || !existsSync(file)) return undefined;
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as unknown;
  } catch (error) {
    throw new ClientError('PlanCorrupt', `${file} cannot be read.`, { cause: error });
  }
}
