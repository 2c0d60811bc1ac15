import type { Client } from '@temporalio/client';

import { fleetStatus, listFleets, waitingBatches } from '../client/fleets.js';
import type { FleetStatus } from '../contracts/workflows.js';

/** A fleet as its workflow and its queue show it. */
export interface FleetSample {
  readonly status: FleetStatus;
  /** Batches in the queue that its engines share; undefined when the server does not say. */
  readonly waiting: number | undefined;
}

/** Scrapers of several kinds ask within seconds of each other. */
const FRESH_MS = 5_000;
/** Half of the time that Prometheus waits for a scrape by default. */
const ANSWER_MS = 5_000;

/** Looks at the fleets that are up, when somebody asks and not more often than every few seconds. */
export class FleetWatch {
  #last: { readonly at: number; readonly fleets: Promise<readonly FleetSample[]> } | undefined;

  constructor(private readonly client: Client) {}

  /** Queries of workflows leave nothing in their histories. Rejects when Temporal does not answer. */
  async look(): Promise<readonly FleetSample[]> {
    const now = Date.now();
    if (this.#last === undefined || now - this.#last.at > FRESH_MS) {
      this.#last = { at: now, fleets: this.#ask() };
    }
    return this.#last.fleets;
  }

  async #ask(): Promise<FleetSample[]> {
    const { client } = this;
    return client.withDeadline(Date.now() + ANSWER_MS, async () => {
      const names = await listFleets(client);
      const samples = await Promise.all(
        names.map(async (name) => {
          // One that ended meanwhile, or whose workflow does not answer, hides no other.
          const status = await fleetStatus(client, name, 1).catch(() => undefined);
          if (status === undefined) return [];
          return [{ status, waiting: await waitingBatches(client, status.queue) }];
        }),
      );
      return samples.flat();
    });
  }
}
