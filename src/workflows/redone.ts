import type { RedoneWork } from '../contracts/run.js';

/** Sum of what engines were given more than once; undefined while there is nothing. */
export function addRedone(
  sum: RedoneWork | undefined,
  more: RedoneWork | undefined,
): RedoneWork | undefined {
  if (sum === undefined || more === undefined) return sum ?? more;
  return {
    rows: sum.rows + more.rows,
    tokens: sum.tokens + more.tokens,
    leftTokens: sum.leftTokens + more.leftTokens,
  };
}
