import type { PortToReach } from './facts.js';

/** Ports of a cluster as its file names them; what is not there Ray chooses. */
export interface NodePorts {
  readonly gcs: number;
  readonly dashboard: number;
  readonly client?: number | undefined;
  readonly nodeManager?: number | undefined;
  readonly objectManager?: number | undefined;
  /** Only the head connects to it, and a cluster works without: logs of jobs come from there. */
  readonly dashboardAgentGrpc?: number | undefined;
  /** First and last port of worker processes. */
  readonly workers?: readonly [number, number] | undefined;
}

/** Ray's own, where `ray start` is not told another. */
const WORKERS: readonly [number, number] = [10_002, 19_999];

/**
 * What has to be reached, for {@link ReachCell}s. Of the ports of workers the first, the last and one in the middle: a
 * firewall lets ranges through, so a mistake is at an end of one.
 */
export function portsToReach(ports: NodePorts): PortToReach[] {
  const [first, last] = ports.workers ?? WORKERS;
  const sample = [...new Set([first, Math.floor((first + last) / 2), last])];
  return [
    { what: 'GCS', port: ports.gcs, on: 'head' },
    { what: 'dashboard', port: ports.dashboard, on: 'head' },
    ...(ports.client === undefined
      ? []
      : [{ what: 'Ray client', port: ports.client, on: 'head' as const, optional: true }]),
    { what: 'node manager', port: ports.nodeManager ?? 0, on: 'nodes' },
    { what: 'object manager', port: ports.objectManager ?? 0, on: 'nodes' },
    ...(ports.dashboardAgentGrpc === undefined
      ? []
      : [
          {
            ...{ what: 'dashboard agent', port: ports.dashboardAgentGrpc },
            ...{ on: 'nodes' as const, from: 'head' as const, optional: true },
          },
        ]),
    ...sample.map((port) => ({ what: 'workers', port, on: 'nodes' as const })),
  ];
}
