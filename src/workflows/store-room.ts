import { ApplicationFailure, log, proxyActivities, sleep } from '@temporalio/workflow';

import type { PythonActivities } from '../contracts/activities.js';
import { PYTHON_QUEUE } from '../contracts/names.js';
import type { CheckStoreRoomInput } from '../contracts/run.js';
import type { Problem } from '../contracts/workflows.js';
import { causes } from './failures.js';

const python = proxyActivities<Pick<PythonActivities, 'checkStoreRoom'>>({
  taskQueue: PYTHON_QUEUE,
  // It writes and removes one small file: seconds, also on a store that is slow.
  startToCloseTimeout: '2 minutes',
  // Temporal tries it again without an event in the history, so a pause may last for weeks. Each look costs
  // nearly nothing, and whoever frees space wants to see the run go on.
  retry: {
    initialInterval: '2 seconds',
    backoffCoefficient: 1.5,
    maximumInterval: '15 seconds',
    nonRetryableErrorTypes: [],
  },
});

/** A store that is full again so soon (ms) was not found full by the look: a quota, or another host's disk. */
const AGAIN_SOON_MS = 60_000;
/** Wait before looking once more, in ms; twice as long each time, as each try may cost rows in decode. */
const FIRST_WAIT_MS = 30_000;
const LONGEST_WAIT_MS = 600_000;

/**
 * Lets work wait while the store is full, and go on when it has room. What calls it side by side shares one
 * pause, so that one look is out and not one for each batch.
 */
export class StoreRoom {
  #pause: Promise<void> | undefined;
  #wentOnAt = -Infinity;
  #inVain = 0;

  /**
   * @param show told why it pauses, and with undefined that it goes on
   */
  constructor(
    private readonly where: Pick<CheckStoreRoomInput, 'runId' | 'store'>,
    private readonly show: (problem: Problem | undefined) => Promise<void> | void,
  ) {}

  /**
   * Does `work` again until the store has room for it; any other failure is the caller's. `work` goes on with
   * what it had recorded, as after every failure.
   */
  async waitedFor<T>(work: () => Promise<T>): Promise<T> {
    for (;;) {
      if (this.#pause !== undefined) await this.#pause;
      try {
        return await work();
      } catch (error) {
        const full = storeFull(error);
        if (full === undefined) throw error;
        this.#pause ??= this.#untilRoom(full);
        await this.#pause;
      }
    }
  }

  async #untilRoom({ message, details }: ApplicationFailure): Promise<void> {
    const { store } = this.where;
    const wayOut = `Free some space on ${store}; the run goes on by itself.`;
    log.warn('the store is full', { store });
    try {
      await this.show({ type: 'StoreFull', message, wayOut });
      const needed = neededBytes(details);
      const soon = Date.now() - this.#wentOnAt < AGAIN_SOON_MS;
      // A look that knows what is needed is right the first time.
      this.#inVain = soon && needed.neededBytes === undefined ? this.#inVain + 1 : 0;
      if (this.#inVain > 0) {
        await sleep(Math.min(FIRST_WAIT_MS * 2 ** (this.#inVain - 1), LONGEST_WAIT_MS), {
          summary: `Wait, as ${store} was full again soon after it had room`,
        });
      }
      await python.checkStoreRoom.executeWithOptions(
        { summary: `Look until ${store} has room again` },
        [{ ...this.where, ...needed }],
      );
      this.#wentOnAt = Date.now();
      await this.show(undefined);
    } finally {
      this.#pause = undefined;
    }
  }
}

function storeFull(error: unknown): ApplicationFailure | undefined {
  return causes(error).find(
    (link): link is ApplicationFailure =>
      link instanceof ApplicationFailure && link.type === 'StoreFull',
  );
}

/** How much room the work says that it needs, so that it is not tried again before. */
function neededBytes(
  details: ApplicationFailure['details'],
): Pick<CheckStoreRoomInput, 'neededBytes'> {
  const needed = (details?.[0] as CheckStoreRoomInput | undefined)?.neededBytes;
  return needed === undefined ? {} : { neededBytes: needed };
}
