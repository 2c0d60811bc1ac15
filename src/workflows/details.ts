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
  return String(value)
    .replaceAll(/\s*\n\s*/gu, ' ')
    .replaceAll('|', '\\|')
    .slice(0, LONGEST_CELL);
}
