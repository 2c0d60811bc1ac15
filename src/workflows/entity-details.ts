import type { ClusterStatus, FleetStatus, Problem } from '../contracts/workflows.js';
import { table } from './details.js';

/** Markdown for the Temporal UI: one line for each node. */
export function clusterDetails(status: ClusterStatus): string {
  const rows = status.nodes.map(({ name, state, ip, cpus, gpus }) => [
    name,
    state,
    ip ?? '',
    `${cpus} CPU, ${gpus} GPU`,
  ]);
  return [
    `**${status.state}** at ${status.address?.address ?? 'no address yet'}`,
    table(['Node', 'State', 'Address', 'Resources'], rows),
    ...problemLine(status.problem),
  ].join('\n\n');
}

/** Markdown for the Temporal UI: one line for each engine. */
export function fleetDetails(status: FleetStatus): string {
  const rows = status.slots.map(({ slot, state, incarnation, since, restarts, problem }) => [
    slot,
    state,
    incarnation ?? '',
    since,
    restarts,
    problem?.message ?? '',
  ]);
  return [
    `**${status.state}**: ${status.ready} of ${status.desired} engines of ${status.model}`,
    table(['Slot', 'State', 'Incarnation', 'Since', 'Restarts', 'Problem'], rows),
    ...problemLine(status.problem),
  ].join('\n\n');
}

const problemLine = (problem: Problem | undefined): string[] =>
  problem === undefined ? [] : [`Last problem: ${problem.message}`];
