import { createHash } from 'node:crypto';

import { canonicalJson, servedModel } from '../contracts/hash.js';
import { BatchLimits, type RunSpec } from '../contracts/run.js';
import { ClientError } from './errors.js';
import type { PreparedRun } from './inference.js';

/** Parameters of a run as flat text, e.g. `model.dtype` → `"float32"`: what a run is compared by. */
export type Parameters = Readonly<Record<string, string>>;

/** Memo of an inference workflow: what the command line needs to know again. Never a prompt. */
export interface RunMemo {
  readonly parameters: Parameters;
  readonly store: string;
  readonly fleet: string;
  readonly cluster: string;
  /** The run whose failed rows this one generates. */
  readonly retryOf?: string;
}

/**
 * Everything that decides what a run answers. The address of the input does not: its content does. A template
 * may hold a user's text, so only its hash is kept.
 */
export function runParameters(spec: RunSpec, inputSha256: string | undefined): Parameters {
  const { uri, template, ...input } = spec.input;
  return flatten({
    input: {
      ...input,
      ...(inputSha256 === undefined ? { uri } : { sha256: inputSha256 }),
      template: template && createHash('sha256').update(template).digest('hex'),
    },
    store: spec.store,
    model: servedModel(spec.model),
    sampling: spec.sampling,
    ranks: spec.ranks,
    onInvalid: spec.onInvalid,
    batch: spec.batch,
  });
}

function flatten(value: object, prefix = ''): Record<string, string> {
  const flat: Record<string, string> = {};
  for (const [key, inner] of Object.entries(value)) {
    if (inner === undefined || inner === null) continue;
    const name = `${prefix}${key}`;
    if (typeof inner === 'object' && !Array.isArray(inner)) {
      Object.assign(flat, flatten(inner as object, `${name}.`));
    } else flat[name] = canonicalJson(inner);
  }
  return flat;
}

/** One line for each parameter that differs, sorted: `ranks: 2 before, 4 now`. */
export function differences(before: Parameters, now: Parameters): string[] {
  const names = [...new Set([...Object.keys(before), ...Object.keys(now)])].toSorted();
  return names
    .filter((name) => before[name] !== now[name])
    .map((name) => `${name}: ${before[name] ?? 'not set'} before, ${now[name] ?? 'not set'} now`);
}

/** Parameters that only say how the work is cut up: an unnamed run keeps those of its plan. */
const LAYOUT = ['ranks', 'batch.maxRows', 'batch.maxTokens'];
/** What those are when nobody asks for anything, as far as they are fixed: in another release they may be others. */
const USUAL = flatten({ batch: BatchLimits.parse({}) });

/**
 * Holds a run against an earlier one of the same id.
 *
 * A run that the user did not name is found by its content, so one that was planned with other ranks or batch
 * limits is the same run: its plan is kept, and `run.inference` takes over its numbers. So are batch limits of a
 * named run that nobody asked for. Every other difference is refused.
 *
 * @returns lines about what was taken over, for people
 * @throws ClientError `RunMismatch` with the differences
 */
export function reconcile(run: PreparedRun, before: Parameters): string[] {
  const now = runParameters(run.inference.run, run.inputSha256);
  const different = differences(before, now);
  const refused = different.filter((line) => !isLayout(line.split(':')[0] ?? '', run.named, now));
  if (refused.length > 0) {
    const id = run.inference.run.runId;
    throw new ClientError(
      'RunMismatch',
      [`The run ${id} has other parameters:`, ...refused].join('\n  '),
    );
  }
  const { run: spec } = run.inference;
  spec.ranks = numberOr(before['ranks'], spec.ranks);
  spec.batch.maxRows = numberOr(before['batch.maxRows'], spec.batch.maxRows);
  spec.batch.maxTokens = numberOr(before['batch.maxTokens'], spec.batch.maxTokens);
  return different.map((line) => `Keeping the plan that is there: ${line}`);
}

/** Whether a parameter only cuts the work up, and is not what somebody wants of a run with a name. */
const isLayout = (name: string, named: boolean, now: Parameters): boolean =>
  LAYOUT.includes(name) && (!named || now[name] === USUAL[name]);

const numberOr = (text: string | undefined, otherwise: number): number =>
  text === undefined ? otherwise : Number(text);
