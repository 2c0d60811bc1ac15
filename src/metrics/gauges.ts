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

/**
 * What the control worker tells of the fleets that are up. Several control workers tell the same: take the maximum.
 *
 * @param look asks for them; that nobody answers is told by `rankflow_fleets_observed`
 */
export function fleetRegistry(look: () => Promise<readonly FleetSample[]>): Registry {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry });
  const gauge = <Label extends string>(name: string, help: string, labelNames: readonly Label[]) =>
    new Gauge({ name, help, labelNames: [...labelNames], registers });
  const engines = gauge('rankflow_engines', 'Engines of a fleet by state.', ['fleet', 'state']);
  const desired = gauge('rankflow_engines_desired', 'Engines that a fleet is to have.', ['fleet']);
  const restarts = gauge(
    'rankflow_engine_restarts',
    "Restarts by Ray of the engines that are there, since each was a fleet's.",
    ['fleet'],
  );
  const queue = gauge(
    'rankflow_queue_depth',
    "Batches that wait in a fleet's queue, by Temporal's approximate count.",
    ['fleet'],
  );
  new Gauge({
    name: 'rankflow_fleets_observed',
    help: '1 when Temporal could be asked for the fleets, else 0.',
    registers,
    async collect() {
      for (const one of [engines, desired, restarts, queue]) one.reset();
      try {
        for (const sample of await look()) set(sample);
        this.set(1);
      } catch {
        this.set(0);
      }
    },
  });
  const set = ({ status, waiting }: FleetSample): void => {
    const { name: fleet, slots } = status;
    for (const state of STATES) {
      engines.set({ fleet, state }, slots.filter((slot) => slot.state === state).length);
    }
    desired.set({ fleet }, status.desired);
    restarts.set(
      { fleet },
      slots.reduce((sum, slot) => sum + slot.restarts, 0),
    );
    if (waiting !== undefined) queue.set({ fleet }, waiting);
  };
  return registry;
}
