import { ERRORS } from '../contracts/errors.js';
import type { Problem } from '../contracts/workflows.js';

type Cell = string | number;

/** A Markdown table, as the Temporal UI shows it among a workflow's current details. */
export function table(head: readonly Cell[], rows: readonly (readonly Cell[])[]): string {
  const line = (cells: readonly Cell[]): string => `| ${cells.map(cell).join(' | ')} |`;
  const lines = [line(head), line(head.map(() => '---')), ...rows.map(line)];
  // The web interface cuts the last line off: so that is an empty one.
  return `${lines.join('\n')}\n\n\u00A0`;
}

/** Longer texts, such as the tail of a log, do not fit a table. */
const LONGEST_CELL = 300;

function cell(value: Cell): string {
  return optionsAsCode(String(value))
    .replaceAll(/\s*\n\s*/gu, ' ')
    .replaceAll('|', '\\|')
    .slice(0, LONGEST_CELL);
}

/** The web interface shows two hyphens as a dash but for those of code: an option has to be fit to be copied. */
const optionsAsCode = (text: string): string =>
  text
    .split('`')
    .map((part, index) =>
      index % 2 === 0 ? part.replaceAll(/(?<![\w-])--[a-z][\w-]*/gu, '`$&`') : part,
    )
    .join('`');

/** What a person can do about a problem: about this very one, else about its kind. */
export const wayOutOf = ({ type, wayOut }: Problem): string | undefined =>
  wayOut ?? (type === 'Unknown' ? undefined : ERRORS[type].wayOut);

/** The rows of a table that tell a problem, and what a person can do; none without a problem. */
export function problemRows(problem: Problem | undefined): (readonly Cell[])[] {
  if (problem === undefined) return [];
  const wayOut = wayOutOf(problem);
  return [['Problem', problem.message], ...(wayOut === undefined ? [] : [['Way out', wayOut]])];
}

/**
 * The same below a table, where there is one line for each, and when it was (`at`, ISO 8601).
 *
 * @param over whether all is well again: what passes by itself then needs no way out any more
 */
export function problemLines(
  problem: (Problem & { readonly at?: string }) | undefined,
  over = false,
): string[] {
  if (problem === undefined) return [];
  const { type, message, at } = problem;
  const passed = over && type !== 'Unknown' && ERRORS[type].retryable;
  const wayOut = passed ? undefined : wayOutOf(problem);
  const last = `Last problem${at === undefined ? '' : ` (${at})`}: ${message}`;
  return [last, ...(wayOut === undefined ? [] : [`Way out: ${wayOut}`])].map(optionsAsCode);
}
