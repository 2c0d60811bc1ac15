import { withLock } from './lock.js';
import type { Log } from './log.js';
import { ensureModel, SMALL_MODEL } from './model.js';
import { paint } from './paint.js';
import { paths } from './paths.js';
import { ensureJobPackages, ensurePython } from './python.js';
import { ensureTemporal } from './temporal.js';

export interface SetUp {
  /** The Temporal CLI: a path, or a name on PATH. */
  readonly temporal: string;
  /** Interpreter of the environment that holds vLLM, Ray and the Temporal SDK. */
  readonly python: string;
  /** Folder of the small model. */
  readonly model: string;
}

/**
 * Installs everything that Rankflow needs beside Node.js into the data folder: the Temporal CLI, the Python
 * environment and a small model. What is there already is kept; a second call takes under a second.
 *
 * @param options.log takes progress lines
 * @param options.jobs also installs what `examples/jobs` needs
 * @throws Error when a part cannot be installed; the message says what to do
 */
export async function setUp(options: {
  readonly log: Log;
  readonly jobs?: boolean;
}): Promise<SetUp> {
  const { log, jobs = false } = options;
  return withLock(
    'setup',
    log,
    paint.dim('another set-up is going on, waiting for it ...'),
    async () => {
      // Both parts run to their end before a failure is told: the one that works need not be done again.
      const [temporal, rest] = await Promise.allSettled([
        ensureTemporal(log),
        ensurePython(log)
          .then(async () => (jobs ? ensureJobPackages(log) : undefined))
          .then(() => ensureModel(log)),
      ]);
      if (temporal.status === 'rejected') throw temporal.reason;
      if (rest.status === 'rejected') throw rest.reason;
      return { temporal: temporal.value.command, python: paths.python, model: SMALL_MODEL };
    },
  );
}
