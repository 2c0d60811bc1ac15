import { enginesOf } from '../lab/engines.js';
import type { Host, Network } from '../network/network.js';
import type { RayOnHosts } from '../network/ray.js';
import { CLUSTER, ENGINE, heldBack } from './bounds.js';
import type { Fault, Target } from './fault.js';

/** Shorter than every time-out: nothing should be lost. */
const SHORT_S = 10;
/** Longer than the heartbeat time-out of a batch, and than Ray takes to give a node up. */
const LONG_S = 75;

/** Partitions between hosts. What they cost depends on how long they last and on who is cut off from whom. */
export function networkFaults(
  network: Network,
  ray: RayOnHosts,
  workers: readonly Host[],
): Fault[] {
  const head = network.host('head');
  const temporal = network.host('temporal').address;
  const engines = async ({ trial }: Target) =>
    enginesOf(await trial.stack.fleetStatus(trial.fleet));
  const common = { phases: ['generate'], backends: ['simulated'] } as const;

  const fromTemporal = (name: string, seconds: number): Fault => ({
    ...common,
    name,
    title: `a node cannot reach Temporal for ${seconds} s, and everybody else can`,
    scope: 'fleet',
    bound: heldBack(seconds),
    aim: async (target) => {
      const host = target.random.pick(workers);
      return {
        what: `${host.name} from Temporal for ${seconds} s`,
        engines: await engines(target),
        strike: () => network.cut(host, temporal),
        holdSeconds: seconds,
        heal: () => network.join(host, temporal),
      };
    },
  });

  return [
    fromTemporal('partition-temporal-short', SHORT_S),
    fromTemporal('partition-temporal', LONG_S),
    {
      ...common,
      name: 'partition-nodes',
      title: `a node cannot reach the Ray head and the other nodes for ${LONG_S} s; Temporal it can`,
      scope: 'fleet',
      bound: CLUSTER,
      aim: async (target) => {
        const host = target.random.pick(workers);
        const others = [head, ...workers.filter((other) => other !== host)];
        return {
          what: `${host.name} from ${others.map(({ name }) => name).join(', ')}`,
          engines: await engines(target),
          strike: () => {
            for (const { address } of others) network.cut(host, address);
          },
          holdSeconds: LONG_S,
          heal: async () => {
            for (const { address } of others) network.join(host, address);
            // A node that Ray gave up ends; starting it again is for whoever runs the machines.
            await ray.start(host);
          },
        };
      },
    },
    {
      ...common,
      name: 'partition-all',
      title: `a node is cut off from everybody for ${LONG_S} s`,
      scope: 'fleet',
      bound: CLUSTER,
      aim: async (target) => {
        const host = target.random.pick(workers);
        return {
          what: host.name,
          engines: await engines(target),
          strike: () => network.unplug(host),
          holdSeconds: LONG_S,
          heal: async () => {
            network.plug(host);
            await ray.start(host);
          },
        };
      },
    },
    {
      ...common,
      name: 'partition-head-short',
      title: `the Ray head is cut off from everybody for ${SHORT_S} s`,
      scope: 'fleet',
      bound: ENGINE,
      aim: async () => ({
        what: `head for ${SHORT_S} s`,
        strike: () => network.unplug(head),
        holdSeconds: SHORT_S,
        heal: () => network.plug(head),
      }),
    },
  ];
}
