import type { ClusterNodeStatus, ClusterStatus } from '../contracts/workflows.js';
import { nodeState } from '../workflows/entity-details.js';
import { table } from './output.js';

/** Events that are shown: the last ones say what is going on. */
const EVENTS = 10;

/** A cluster, for people: a line for each node, and what happened last. */
export function clusterTable(cluster: ClusterStatus): string {
  const { name, state, provider, address, nodes, users, problem, events = [] } = cluster;
  const isShown = nodes.some((node) => node.problem?.message === problem?.message);
  const head = ['NODE', 'STATE', 'ADDRESS', 'RESOURCES', 'ENGINES', 'SINCE', 'LAST PROBLEM'];
  return [
    `${name}: ${state} (${provider})${address ? `, Ray ${address.address}, dashboard ${address.dashboardUrl}` : ''}`,
    table([head, ...nodes.map(row)]),
    ...(users.length > 0 ? [`used by ${users.join(', ')}`] : []),
    ...(problem === undefined || isShown ? [] : [`last problem: ${problem.message}`]),
    ...events.slice(-EVENTS).map(({ at, node, what }) => `${at}  ${node ?? name}: ${what}`),
  ].join('\n');
}

function row(node: ClusterNodeStatus): string[] {
  const { name, ip, host, cpus, gpus, engines, since, problem } = node;
  return [
    name,
    nodeState(node),
    ip ?? host ?? '',
    `${cpus} CPU${gpus > 0 ? `, ${gpus} GPU` : ''}`,
    engines === undefined ? '' : String(engines),
    since ?? '',
    problem?.message.split('\n')[0] ?? '',
  ];
}
