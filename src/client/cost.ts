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
  const nodes = usage.nodes.map((one): NodeCost => {
    const engineHours = (one.loadingSeconds + one.readySeconds + one.drainingSeconds) / HOUR_S;
    const price = prices.nodes?.[one.node] ?? prices.engineHour;
    return {
      node: one.node,
      engineHours,
      ...(price !== undefined && { money: engineHours * price }),
    };
  });
  const engineHours = sum(nodes.map((one) => one.engineHours));
  const paid = nodes.flatMap(({ money }) => (money === undefined ? [] : [money]));
  const money = nodes.length > 0 && paid.length === nodes.length ? sum(paid) : undefined;
  const { generateSeconds: seconds, redone } = usage;
  return {
    engineHours,
    loadingHours: sum(usage.nodes.map((one) => one.loadingSeconds)) / HOUR_S,
    drainingHours: sum(usage.nodes.map((one) => one.drainingSeconds)) / HOUR_S,
    preemptions: usage.preemptions ?? 0,
    ...(redone && { redoneTokens: redone.tokens, redoneAfterLeaving: redone.leftTokens }),
    nodes,
    ...(seconds && { tokensPerSecond: tokens / seconds }),
    ...(engineHours > 0 && { tokensPerEngineHour: tokens / engineHours }),
    ...(money !== undefined && { money }),
    ...(money !== undefined && tokens > 0 && { moneyPerMillionTokens: (money / tokens) * 1e6 }),
  };
}

const sum = (values: readonly number[]): number =>
  values.reduce((total, value) => total + value, 0);
