import { readFile, stat } from 'node:fs/promises';
import path from 'node:path';

import { z } from 'zod';

const ResultFile = z.object({
  /** In the store. */
  path: z.string(),
  size: z.int().nonnegative(),
  rows: z.int().nonnegative(),
});

/** The fields of a run's `manifest.json` that are needed here; the planner's language writes it. */
const Manifest = z.object({
  state: z.enum(['completed', 'cancelled', 'expired']),
  rows: z.int(),
  succeeded: z.int(),
  failed: z.int(),
  promptTokens: z.int(),
  completionTokens: z.int(),
  output: ResultFile,
  errors: ResultFile,
});

/** What a finished run wrote. */
export interface RunResults extends z.infer<typeof Manifest> {
  /** Milliseconds since the epoch: when the manifest was written. */
  readonly at: number;
}

/** The results of a run in a store folder, by its manifest, which is written last; undefined before that. */
export async function readResults(store: string, runId: string): Promise<RunResults | undefined> {
  const file = path.join(store, 'runs', runId, 'manifest.json');
  try {
    const [text, { mtimeMs }] = await Promise.all([readFile(file, 'utf8'), stat(file)]);
    return { ...Manifest.parse(JSON.parse(text)), at: Math.floor(mtimeMs) };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
