import type { Client } from '@temporalio/client';

import { EXIT, isTransient } from '../client/errors.js';
import { afterLog, readAttemptLog, type JobPlace } from '../client/job-logs.js';
import { isJobOver, jobView, type JobView } from '../client/jobs.js';

/** Time between two looks, in ms. */
const LOOK_MS = 1_000;

export interface JobListener {
  /** Called when state or attempt have changed. */
  changed(view: JobView): void;
  /** Takes the log as it comes. */
  log(data: Buffer, attempt: number): void;
}

/**
 * Shows a job until it is over, or until Ctrl-C, which leaves the job alone.
 *
 * @param from first attempt whose log is shown; default: the one that runs
 * @returns the last view; undefined when it was interrupted
 */
export async function followJob(
  client: Client,
  jobId: string,
  listener: JobListener,
  from?: number,
): Promise<JobView | undefined> {
  let interrupted = false;
  const onInterrupt = (): void => {
    // The second time somebody does not want to wait for an answer that may not come.
    if (interrupted) process.exit(EXIT.interrupted);
    interrupted = true;
  };
  process.on('SIGINT', onInterrupt);
  process.on('SIGTERM', onInterrupt);
  const reader = new LogReader(listener, from);
  let shown = '';
  try {
    for (;;) {
      const view = await lookAt(client, jobId);
      if (view !== undefined) {
        const key = `${view.state} ${view.attempts.length} ${view.problem ?? ''}`;
        if (key !== shown) listener.changed(view);
        shown = key;
        await reader.read(view);
        if (isJobOver(view.state)) return view;
      }
      if (interrupted) return undefined;
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  } finally {
    process.off('SIGINT', onInterrupt);
    process.off('SIGTERM', onInterrupt);
  }
}

/** A server that is away for a moment is looked for again. */
async function lookAt(client: Client, jobId: string): Promise<JobView | undefined> {
  try {
    return await jobView(client, jobId);
  } catch (error) {
    if (isTransient(error)) return undefined;
    throw error;
  }
}

/** Hands over the logs of the attempts one after the other, each byte once. */
class LogReader {
  #at = 0;

  constructor(
    private readonly listener: JobListener,
    private attempt?: number,
  ) {}

  async read({ attempts, store, jobId, state }: JobView): Promise<void> {
    const place: JobPlace = { store, jobId };
    const newest = attempts.at(-1)?.attempt;
    if (newest === undefined) return;
    this.attempt ??= newest;
    while (this.attempt <= newest) {
      const { attempt } = this;
      this.#at = await readAttemptLog(place, attempt, this.#at, (data) =>
        this.listener.log(data, attempt),
      );
      if (attempt === newest && !isJobOver(state)) return;
      const message = await afterLog(place, attempt, this.#at);
      if (message !== undefined) this.listener.log(Buffer.from(message), attempt);
      this.attempt += 1;
      this.#at = 0;
    }
  }
}
