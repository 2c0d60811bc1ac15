import { createHash } from 'node:crypto';

import type { ModelSpec } from './model.js';
import type { RunSpec } from './run.js';

/** JSON with sorted keys, so that equal values have equal text. */
export function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, inner: unknown) =>
    inner !== null && typeof inner === 'object' && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');

/** A model spec without what one engine takes of its node, which changes no answer. */
export function servedModel(model: ModelSpec): Omit<ModelSpec, 'cpusPerEngine' | 'gpusPerEngine'> {
  const { cpusPerEngine: _cpus, gpusPerEngine: _gpus, ...served } = model;
  return served;
}

/** Hex sha256 of what a model spec serves: names the fleet's queue and is asserted by every batch. */
export function specHash(model: ModelSpec): string {
  return sha256(canonicalJson(servedModel(model)));
}

/**
 * The run id of an input, unless the user gives one: the same content, model and sampling is the same run.
 *
 * @param inputSha256 hex sha256 of the input file's bytes
 */
export function deriveRunId(inputSha256: string, spec: Omit<RunSpec, 'runId'>): string {
  const { input, sampling, onInvalid } = spec;
  const model = servedModel(spec.model);
  const identity = { inputSha256, ...input, uri: undefined, model, sampling, onInvalid };
  return `run-${sha256(canonicalJson(identity)).slice(0, 16)}`;
}
