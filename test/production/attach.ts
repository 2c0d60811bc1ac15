import { EXIT } from '../../src/client/errors.js';

/**
 * Repeats a command that could not see its run for two minutes and gave up, as a user does: it attaches to the run. On a
 * busy machine Temporal takes longer than that to find itself again after its database was away.
 */
export async function attached<Result extends { exitCode?: number }>(
  first: Result,
  again: () => PromiseLike<Result>,
): Promise<Result> {
  let result = first;
  for (let tries = 0; tries < 5 && result.exitCode === EXIT.unreachable; tries += 1) {
    result = await again();
  }
  return result;
}
