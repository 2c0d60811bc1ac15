import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';

import type {
  FinalizeRunResult,
  PlanSummary,
  RowCounts,
  RunSpec,
  RunState,
} from '../contracts/run.js';
import { checkAllowed } from '../roots.js';
import { ClientError } from './errors.js';
import { type Parameters, runParameters } from './identity.js';
import type { PreparedRun } from './inference.js';
import { pythonError, runPython } from './python.js';
import type { RunSnapshot } from './snapshot.js';

/** Results of a finished run, as its store holds them. */
export interface StoredResult {
  readonly state: 'completed' | 'cancelled' | 'expired';
  readonly output: FinalizeRunResult;
}

interface StoredPlan {
  readonly spec: RunSpec;
  readonly summary: PlanSummary;
}

/** The fields of `manifest.json` that are needed here. */
type Manifest = Pick<StoredResult, 'state'> & Omit<FinalizeRunResult, `${string}Uri`>;

/** What a store has of a run. */
interface StoredRun {
  readonly plan?: StoredPlan;
  readonly manifest?: Manifest;
  /** Of a run that is planned and not finished; only where the commits were read. */
  readonly committed?: RowCounts;
}

/** A run in a store, as a list shows it. */
export interface StoredListing {
  readonly runId: string;
  /** `validating` without a plan, `in_progress` without results, else how it ended. */
  readonly state: RunState;
  /** When it was planned; unknown for a bucket. */
  readonly plannedAt?: Date;
}

const isBucket = (store: string): boolean => store.includes('://');

/** Parameters of the plan in a store; undefined when there is none. */
export async function plannedParameters(run: PreparedRun): Promise<Parameters | undefined> {
  const { store, runId } = run.inference.run;
  const { plan } = await readRun(store, runId);
  if (plan === undefined) return undefined;
  // Where the store is says nothing about a plan that was found in it: a store can be moved.
  const spec = { ...plan.spec, store };
  return runParameters(spec, run.inputSha256 && plan.summary.inputSha256);
}

/** The results of a run in a store; undefined when it has none (yet). */
export async function storedResult(
  store: string,
  runId: string,
): Promise<StoredResult | undefined> {
  const { manifest } = await readRun(store, runId);
  return manifest && resultOf(store, runId, manifest);
}

/**
 * How far a run is, as its store alone says it; undefined when the store has nothing of it.
 *
 * @throws ClientError `StoreUnavailable`, `PlanCorrupt`
 */
export async function storedSnapshot(
  store: string,
  runId: string,
): Promise<RunSnapshot | undefined> {
  const { plan, manifest, committed } = await readWithCommits(store, runId);
  const at = Date.now();
  const base = { runId, startedAt: at, at, ranks: 0, retries: 0, troubles: [], engines: [] };
  if (manifest !== undefined) {
    const { state, output } = resultOf(store, runId, manifest);
    const { rows, failed, completionTokens } = output;
    const counts = { totalRows: rows, doneRows: rows, failedRows: failed, completionTokens };
    return { ...base, ...counts, state, phase: 'done', output };
  }
  if (plan === undefined) return undefined;
  return {
    ...base,
    state: 'in_progress',
    phase: 'stored',
    totalRows: plan.summary.rows,
    doneRows: committed?.rows ?? 0,
    failedRows: committed?.failedRows ?? 0,
    completionTokens: committed?.completionTokens ?? 0,
  };
}

/** Whether a store has a plan or results of a run. */
export async function isStored(store: string, runId: string): Promise<boolean> {
  const { plan, manifest } = await readRun(store, runId);
  return plan !== undefined || manifest !== undefined;
}

/** All runs of a store; of a folder the newest first. */
export async function listStored(store: string): Promise<StoredListing[]> {
  if (isBucket(store)) return python<StoredListing[]>(['list', '--store', store]);
  const folder = path.join(store, 'runs');
  checkAllowed(folder);
  if (!existsSync(folder)) return [];
  const folders = readdirSync(folder, { withFileTypes: true }).filter((one) => one.isDirectory());
  const there = folders.filter(({ name: runId }) => !isRemoved(store, runId));
  const runs = there.map(({ name: runId }): StoredListing => {
    const { plan, manifest } = readFolder(store, runId);
    const state = manifest?.state ?? (plan === undefined ? 'validating' : 'in_progress');
    const file = path.join(folder, runId, plan === undefined ? '' : 'plan.json');
    return { runId, state, plannedAt: statSync(file).mtime };
  });
  return runs.toSorted((a, b) => Number(b.plannedAt) - Number(a.plannedAt));
}

function resultOf(store: string, runId: string, manifest: Manifest): StoredResult {
  const { state, rows, succeeded, failed, promptTokens, completionTokens } = manifest;
  const at = (name: string): string => {
    const key = `runs/${runId}/${name}`;
    return isBucket(store) ? `${store.replace(/\/+$/u, '')}/${key}` : path.join(store, key);
  };
  const output = {
    ...{ rows, succeeded, failed, promptTokens, completionTokens },
    outputUri: at('output.jsonl'),
    errorsUri: at('errors.jsonl'),
    manifestUri: at('manifest.json'),
  };
  return { state, output };
}

/** A folder is read here, at once; only the Python side has a client for buckets. */
const readRun = async (store: string, runId: string): Promise<StoredRun> =>
  isBucket(store) ? readWithCommits(store, runId) : readFolder(store, runId);

async function readWithCommits(store: string, runId: string): Promise<StoredRun> {
  const known = isBucket(store) ? undefined : readFolder(store, runId);
  if (known?.manifest !== undefined || (known !== undefined && known.plan === undefined))
    return known;
  return python<StoredRun>(['stored', '--store', store, '--run-id', runId]);
}

async function python<T>(args: readonly string[]): Promise<T> {
  const result = await runPython(['rankflow.rows', ...args]);
  if (result.exitCode !== 0) throw pythonError('Reading the store', result);
  return JSON.parse(result.stdout) as T;
}

/** Whether a run is gone although files of it are still there: `rankflow gc` was, or is, removing it. */
function isRemoved(store: string, runId: string): boolean {
  const has = (name: string): boolean => existsSync(path.join(store, 'runs', runId, name));
  return has('removing.json') && !has('manifest.json');
}

function readFolder(store: string, runId: string): StoredRun {
  checkAllowed(path.join(store, 'runs', runId));
  if (isRemoved(store, runId)) return {};
  const plan = readFile(store, runId, 'plan.json') as StoredPlan | undefined;
  const manifest = readFile(store, runId, 'manifest.json') as Manifest | undefined;
  return { ...(plan && { plan }), ...(manifest && { manifest }) };
}

function readFile(store: string, runId: string, name: string): unknown {
  const file = path.join(store, 'runs', runId, name);
  if (!existsSync(file)) return undefined;
  checkAllowed(file);
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as unknown;
  } catch (error) {
    throw new ClientError('PlanCorrupt', `${file} cannot be read.`, { cause: error });
  }
}
