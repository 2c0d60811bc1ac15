import type { Command } from 'commander';

import type { FleetStatus } from '../contracts/workflows.js';
import { duration } from './run-options.js';

/** `rankflow fleet status|stop|drain`. */
export function register(program: Command): void {
  const fleet = program.command('fleet').description('engines of a model: status, stop, drain');
  fleet
    .command('status')
    .description('show a fleet and its engines, or all that are up')
    .argument('[name]')
    .option('--json', 'print it as JSON')
    .action(status);
  fleet
    .command('stop')
    .description('stop a fleet, whoever uses it')
    .argument('<name>')
    .option('--json', 'print what became of it as JSON')
    .action(stop);
  fleet
    .command('drain')
    .description('let the engines of a fleet finish what they have, then end it')
    .argument('<name>')
    .option('--grace <time>', 'after which rows in decode are given back (default: 1h)', duration)
    .option('--json', 'print what became of it as JSON')
    .action(drain);
}

async function status(name: string | undefined, flags: { readonly json?: boolean }): Promise<void> {
  const { fleetStatus, listFleets } = await import('../client/fleets.js');
  const { ClientError } = await import('../client/errors.js');
  const { withClient } = await import('../client/connection.js');
  const { print, printJson, say } = await import('./output.js');

  const statuses = await withClient(async (client) => {
    const names = name === undefined ? await listFleets(client) : [name];
    const found = await Promise.all(names.map((one) => fleetStatus(client, one)));
    return found.filter((one) => one !== undefined);
  });
  if (name !== undefined && statuses.length === 0) {
    throw new ClientError('NotFound', `There is no fleet ${name}.`);
  }
  if (flags.json) printJson(name === undefined ? statuses : statuses[0]);
  else if (statuses.length === 0) say('No fleet is up.');
  else print(statuses.map(fleetText).join('\n\n'));
}

async function stop(name: string, { json }: { readonly json?: boolean }): Promise<void> {
  const { stopFleet } = await import('../client/fleets.js');
  const { withClient } = await import('../client/connection.js');
  const { print, printJson, say } = await import('./output.js');

  const stopped = await withClient((client) => stopFleet(client, name));
  if (json) printJson({ name, stopped });
  else print(name);
  say(stopped ? 'The fleet is stopped.' : 'There was no such fleet up.');
}

interface DrainFlags {
  readonly grace?: number | string;
  readonly json?: boolean;
}

async function drain(name: string, { grace, json }: DrainFlags): Promise<void> {
  const { drainFleet } = await import('../client/fleets.js');
  const { ClientError } = await import('../client/errors.js');
  const { withClient } = await import('../client/connection.js');
  const { print, printJson, say } = await import('./output.js');

  if (typeof grace === 'string') {
    throw new ClientError('Usage', `--grace: ${grace} is no length of time such as 15m`);
  }
  say('Its engines finish what they have; runs that need it wait until it is up again.');
  await withClient(async (client) => drainFleet(client, name, grace));
  if (json) printJson({ name, drained: true });
  else print(name);
}

/** A fleet and its engines, for people. */
export function fleetText(fleet: FleetStatus): string {
  const { name, state, model, cluster, ready, desired, slots, users, problem } = fleet;
  const { scaling, idleTimeoutSeconds, backlog, steps = [] } = fleet;
  return [
    `${name}: ${state}, ${ready} of ${desired} engines ready`,
    `  model ${model}, cluster ${cluster}`,
    ...slots.map((slot) => {
      const parts = [
        slot.deadline === undefined ? slot.state : `${slot.state} until ${slot.deadline}`,
        ...(slot.incarnation ? [`incarnation ${slot.incarnation}`] : []),
        ...(slot.loadSeconds === undefined ? [] : [`loaded in ${Math.round(slot.loadSeconds)}s`]),
        ...(slot.restarts > 0 ? [`restarted ${slot.restarts}x`] : []),
        ...(slot.problem ? [slot.problem.message] : []),
      ];
      return `  engine ${slot.slot}: ${parts.join(', ')}`;
    }),
    ...(scaling
      ? [`  scales by itself: ${scaling.minEngines} to ${scaling.maxEngines} engines`]
      : []),
    ...(idleTimeoutSeconds ? [`  stops when unused for ${idleTimeoutSeconds}s`] : []),
    ...(backlog === undefined ? [] : [`  batches that wait: ${backlog}`]),
    ...steps.map(({ at, from, to, reason }) => `  ${at} ${from} → ${to}: ${reason}`),
    ...(users.length > 0 ? [`  used by ${users.join(', ')}`] : []),
    ...(problem
      ? [`  last problem${problem.at ? ` (${problem.at})` : ''}: ${problem.message}`]
      : []),
  ].join('\n');
}
