import { existsSync } from 'node:fs';
import path from 'node:path';

import { specHash } from '../contracts/hash.js';
import type { ModelSpec } from '../contracts/model.js';
import { SMALL_MODEL } from '../setup/model.js';
import { paths } from '../setup/paths.js';
import { ClientError } from './errors.js';

/**
 * Where a model is: a folder as it is given, a folder of the data folder's `models` by its plain name, else a
 * hub name, which is left alone.
 *
 * @throws ClientError `Usage` when it is written as a path and no folder is there
 */
export function resolveModel(model: string, models: string = paths.models): string {
  if (!model.includes('/')) {
    const known = path.join(models, model);
    // The small model is installed on the way, should it not be there yet.
    const small = model === path.basename(SMALL_MODEL);
    if (small || existsSync(path.join(known, 'config.json'))) return known;
  }
  if (existsSync(path.join(model, 'config.json'))) return path.resolve(model);
  if (/^(?:\.{0,2}\/|~)/u.test(model)) {
    throw new ClientError('Usage', `The model folder ${path.resolve(model)} has no config.json.`, {
      wayOut: 'Name a folder in the Hugging Face layout, or a hub name such as org/model.',
    });
  }
  return model;
}

/**
 * Name of the fleet that serves a model when the user names none: readable, and another one for another spec.
 * At most 32 characters of `[a-z0-9-]`.
 */
export function defaultFleetName(model: ModelSpec): string {
  const readable = path
    .basename(model.model)
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/gu, '-')
    .slice(0, 23)
    .replaceAll(/^-+|-+$/gu, '');
  const hash = specHash(model).slice(0, 8);
  return readable === '' ? `m-${hash}` : `${readable}-${hash}`;
}
