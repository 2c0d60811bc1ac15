import type { RunUsage } from '../contracts/workflows.js';

/** What an engine costs in an hour, in whatever currency. */
export interface Prices {
  /** On nodes that have no price of their own. */
  readonly engineHour?: number;
  /** By the name of the node. */
  readonly nodes?: Readonly<Record<string, number>>;
}

/** What a run took. Engine-hours count each engine from its start, its load included, in this execution alone. */
export interface RunCost {
  readonly engineHours: number;
  /** Of these: models were loading; engines finished what they had while their node was taken away. */
  readonly loadingHours: number;
  readonly drainingHours: number;
  /** Of the loading: in the place of engines whose node was taken away; absent when there were none. */
  readonly reloadingHours?: number;
  /** Engines whose node was taken away with notice. */
  readonly preemptions: number;
  /** Completion tokens that were generated more than once, at most; absent when there were none. */
  readonly redoneTokens?: number;
  /** Of these: given back by engines that had to leave, as preempted ones have. */
  readonly redoneAfterLeaving?: number;
  readonly nodes: readonly NodeCost[];
  /** Generated tokens by the time from the first batch to the end of the assembly. */
  readonly tokensPerSecond?: number;
  readonly tokensPerEngineHour?: number;
  /** Only when every node has a price. */
  readonly money?: number;
  /** Of the money: for these hours of draining and of loading again; absent when there were none. */
  readonly drainingMoney?: number;
  readonly reloadingMoney?: number;
  readonly moneyPerMillionTokens?: number;
}

export interface NodeCost {
  readonly node: string;
  readonly engineHours: number;
  readonly money?: number;
}

const HOUR_S = 3_600;

/**
 * Puts together what a run cost. Pure.
 *
 * @param tokens generated ones: those of the results
 */
export function costOf(usage: RunUsage, tokens: number, prices: Prices = {}): RunCost {
  const priceOf = (node: string): number | undefined => prices.nodes?.[node] ?? prices.engineHour;
  const nodes = usage.nodes.map((one): NodeCost => {
    const engineHours = (one.loadingSeconds + one.readySeconds + one.drainingSeconds) / HOUR_S;
    const price = priceOf(one.node);
    return {
      node: one.node,
      engineHours,
      ...(price !== undefined && { money: engineHours * price }),
    };
  });
  const engineHours = sum(nodes.map((one) => one.engineHours));
  const paid = nodes.flatMap(({ money }) => (money === undefined ? [] : [money]));
  const money = nodes.length > 0 && paid.length === nodes.length ? sum(paid) : undefined;
  type Kind = 'drainingSeconds' | 'reloadingSeconds';
  const hoursOf = (kind: Kind): number => sum(usage.nodes.map((one) => one[kind] ?? 0)) / HOUR_S;
  const moneyOf = (kind: Kind): number =>
    sum(usage.nodes.map((one) => (one[kind] ?? 0) * (priceOf(one.node) ?? 0))) / HOUR_S;
  const [drainingHours, reloadingHours] = [hoursOf('drainingSeconds'), hoursOf('reloadingSeconds')];
  const priced = money !== undefined;
  const { generateSeconds: seconds, redone } = usage;
  return {
    engineHours,
    loadingHours: sum(usage.nodes.map((one) => one.loadingSeconds)) / HOUR_S,
    drainingHours,
    ...(reloadingHours > 0 && { reloadingHours }),
    preemptions: usage.preemptions ?? 0,
    ...(redone && { redoneTokens: redone.tokens, redoneAfterLeaving: redone.leftTokens }),
    nodes,
    ...(seconds && { tokensPerSecond: tokens / seconds }),
    ...(engineHours > 0 && { tokensPerEngineHour: tokens / engineHours }),
    ...(priced && { money }),
    ...(priced && drainingHours > 0 && { drainingMoney: moneyOf('drainingSeconds') }),
    ...(priced && reloadingHours > 0 && { reloadingMoney: moneyOf('reloadingSeconds') }),
    ...(priced && tokens > 0 && { moneyPerMillionTokens: (money / tokens) * 1e6 }),
  };
}

const sum = (values: readonly number[]): number =>
  values.reduce((total, value) => total + value, 0);
