import { type Command, InvalidArgumentError } from 'commander';

import type { Prices, RunCost } from '../client/cost.js';

/** Nodes shown one by one; of more only the sum is. */
const MAX_NODES = 8;

/** Adds `--price-per-hour`. */
export function addPriceOption(command: Command): Command {
  return command.option(
    '--price-per-hour <price>',
    'what an engine costs in an hour, or NODE=PRICE; may be repeated',
    price,
    {},
  );
}

/** `2.5` is for all nodes, `worker-1=0.8` for one. */
export function price(text: string, before: Prices): Prices {
  const [, node, number = ''] = /^(?:(.+)=)?(\d+(?:\.\d+)?)$/u.exec(text) ?? [];
  if (number === '') throw new InvalidArgumentError('Expected 2.5 or NODE=2.5.');
  return node === undefined
    ? { ...before, engineHour: Number(number) }
    : { ...before, nodes: { ...before.nodes, [node]: Number(number) } };
}

/** What a run took, for people: a line or two. */
export function costText(cost: RunCost): string {
  const { engineHours, loadingHours, drainingHours, preemptions, nodes, money } = cost;
  const { redoneTokens = 0, redoneAfterLeaving = 0 } = cost;
  const parts = [`${shown(engineHours)} engine-hours`];
  if (engineHours > 0)
    parts.push(`${Math.round((loadingHours / engineHours) * 100)}% of it loading`);
  if (cost.tokensPerSecond !== undefined) parts.push(`${shown(cost.tokensPerSecond)} tokens/s`);
  if (cost.tokensPerEngineHour !== undefined)
    parts.push(`${shown(cost.tokensPerEngineHour)} tokens per engine-hour`);
  if (money !== undefined) parts.push(`cost ${shown(money)}`);
  if (cost.moneyPerMillionTokens !== undefined)
    parts.push(`${shown(cost.moneyPerMillionTokens)} per million tokens`);
  if (preemptions > 0) {
    const engines = `${preemptions} ${preemptions === 1 ? 'engine' : 'engines'} preempted`;
    const { reloadingHours = 0, drainingMoney = 0, reloadingMoney = 0 } = cost;
    const again = reloadingHours > 0 ? ` and ${shown(reloadingHours)} loading elsewhere` : '';
    const paid =
      money === undefined ? '' : ` (${shown(drainingMoney + reloadingMoney)} of the cost)`;
    parts.push(`${engines}, ${shown(drainingHours)} engine-hours draining${again}${paid}`);
  }
  if (redoneTokens > 0) {
    const left =
      redoneAfterLeaving > 0 ? ` (${shown(redoneAfterLeaving)} of engines that had to leave)` : '';
    parts.push(`up to ${shown(redoneTokens)} tokens generated again${left}`);
  }
  const each = nodes.map(({ node, engineHours: hours }) => `${node} ${shown(hours)}`);
  const byNode =
    nodes.length > 1 && nodes.length <= MAX_NODES ? [`         ${each.join(', ')}`] : [];
  return [`took     ${parts.join(', ')}`, ...byNode].join('\n');
}

/** Three digits: `0.0125`, `12.3`, `1230000`. */
const shown = (value: number): string =>
  value >= 100 ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
