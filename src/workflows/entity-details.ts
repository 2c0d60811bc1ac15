import type { ClusterNodeStatus, ClusterStatus, FleetStatus } from '../contracts/workflows.js';
import { problemLines, table } from './details.js';

/** Markdown for the Temporal UI: one line for each node. */
export function clusterDetails(status: ClusterStatus): string {
  const rows = status.nodes.map((node) => [
    node.name,
    nodeState(node),
    node.ip ?? node.host ?? '',
    `${node.cpus} CPU, ${node.gpus} GPU`,
    node.engines ?? '',
    node.since ?? '',
    node.problem?.message ?? '',
  ]);
  const events = (status.events ?? [])
    .toReversed()
    .map(({ at, node = '', what }) => [at, node, what]);
  return [
    `**${status.state}** at ${status.address?.address ?? 'no address yet'}`,
    table(['Node', 'State', 'Address', 'Resources', 'Engines', 'Since', 'Last problem'], rows),
    ...problemLines(status.problem),
    ...(events.length === 0 ? [] : [table(['When', 'Node', 'What'], events)]),
  ].join('\n\n');
}

/** Lines that a person reads; more of them, formatted at each answer of an engine, would hold up a large fleet. */
const MOST_ENGINES = 100;

/** Markdown for the Temporal UI: one line for each engine, those that are not ready first when there are many. */
export function fleetDetails(status: FleetStatus): string {
  const shown =
    status.slots.length <= MOST_ENGINES
      ? status.slots
      : [
          ...status.slots.filter(({ state }) => state !== 'ready'),
          ...status.slots.filter(({ state }) => state === 'ready'),
        ].slice(0, MOST_ENGINES);
  const more = status.slots.length - shown.length;
  const rows = shown.map((slot) => [
    slot.slot,
    untilOf(slot.state, slot.deadline),
    slot.incarnation ?? '',
    slot.since,
    slot.restarts,
    slot.problem?.message ?? '',
  ]);
  return [
    `**${status.state}**: ${status.ready} of ${status.desired} engines of ${status.model}`,
    table(['Engine', 'State', 'Process', 'Since', 'Restarts', 'Problem'], rows),
    ...(more === 0 ? [] : [`And ${more} more: \`rankflow fleet status ${status.name}\``]),
    ...sizeLines(status),
    ...problemLines(status.problem, status.state === 'ready'),
  ].join('\n\n');
}

/** State of a node, as people see it. */
export const nodeState = ({ state, deadline, unschedulable }: ClusterNodeStatus): string =>
  `${untilOf(state, deadline)}${unschedulable ? ', cordoned' : ''}`;

/** The state, and until when when it has an end. */
const untilOf = (state: string, deadline: string | undefined): string =>
  deadline === undefined ? state : `${state} until ${deadline}`;

/** Why it has the size that it has. */
function sizeLines({ scaling, idleTimeoutSeconds, backlog, steps = [] }: FleetStatus): string[] {
  const limits =
    scaling && `Scales by itself between ${scaling.minEngines} and ${scaling.maxEngines} engines`;
  const idle = idleTimeoutSeconds && `Stops when nobody used it for ${idleTimeoutSeconds} s`;
  const waits = backlog === undefined ? [] : [`Batches that wait: ${backlog}`];
  const rows = steps.map(({ at, from, to, reason }) => [at, `${from} → ${to}`, reason]);
  return [
    ...[limits, idle].filter((line) => typeof line === 'string'),
    ...waits,
    ...(rows.length === 0 ? [] : [table(['At', 'Engines', 'Why'], rows)]),
  ];
}
