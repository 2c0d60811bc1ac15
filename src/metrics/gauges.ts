import { Gauge, Registry, collectDefaultMetrics } from 'prom-client';

import type { FleetSlotStatus } from '../contracts/workflows.js';
import type { FleetSample } from './fleets.js';

/** All of them, so that a state nobody is in is 0 and not absent. */
const STATES = [
  'placing',
  'loading',
  'ready',
  'restarting',
  'draining',
  'dead',
  'failed',
] as const satisfies readonly FleetSlotStatus['state'][];

/** What the control worker tells of itself and of the fleets that are up. Several control workers tell the same. */
export class FleetGauges {
  readonly #registry = new Registry();
  readonly #engines = this.#gauge('engines', 'Engines by state.', ['fleet', 'state']);
  readonly #desired = this.#gauge('engines_desired', 'Engines that there are to be.', ['fleet']);
  readonly #restarts = this.#gauge(
    'engine_restarts',
    'Restarts by Ray of the engines that are there.',
    ['fleet'],
  );
  readonly #queue = this.#gauge(
    'queue_depth',
    "Batches that wait in a fleet's queue, by Temporal's approximate count.",
    ['fleet'],
  );
  readonly #observed = this.#gauge(
    'fleets_observed',
    '1 when Temporal could be asked for the fleets, else 0.',
    [],
  );

  /** @param look asks for the fleets; that nobody answers is a metric, too */
  constructor(private readonly look: () => Promise<readonly FleetSample[]>) {
    collectDefaultMetrics({ register: this.#registry });
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  /** All of it as it is now, in Prometheus' text format. */
  async text(): Promise<string> {
    const fleets = await this.look().catch(() => undefined);
    // What is gone must not stay at its last value.
    for (const gauge of [this.#engines, this.#desired, this.#restarts, this.#queue]) gauge.reset();
    for (const fleet of fleets ?? []) this.#set(fleet);
    this.#observed.set(fleets === undefined ? 0 : 1);
    return this.#registry.metrics();
  }

  #set({ status, waiting }: FleetSample): void {
    const { name: fleet, slots, desired } = status;
    for (const state of STATES) {
      this.#engines.set({ fleet, state }, slots.filter((slot) => slot.state === state).length);
    }
    const restarts = slots.reduce((sum, slot) => sum + slot.restarts, 0);
    this.#desired.set({ fleet }, desired);
    this.#restarts.set({ fleet }, restarts);
    if (waiting !== undefined) this.#queue.set({ fleet }, waiting);
  }

  #gauge(name: string, help: string, labelNames: string[]): Gauge {
    return new Gauge({ name: `rankflow_${name}`, help, labelNames, registers: [this.#registry] });
  }
}
