import type { FleetSample } from './fleets.js';

/** A group of addresses as Prometheus' HTTP service discovery expects it. */
export interface TargetGroup {
  readonly targets: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
}

/**
 * The engines that serve metrics. Each has its own labels, which Prometheus puts on all of its metrics, those of vLLM
 * and of Temporal's SDK included.
 */
export function engineTargets(fleets: readonly FleetSample[]): TargetGroup[] {
  return fleets.flatMap(({ status: { name, cluster, model, slots } }) =>
    slots.flatMap(({ slot, metrics }) =>
      metrics === undefined
        ? []
        : [{ targets: [metrics], labels: { fleet: name, slot: String(slot), cluster, model } }],
    ),
  );
}
