/** A fenced block of a document. */
export interface Block {
  /** `sh`, `text`, `python` … */
  readonly language: string;
  /** What follows the language: `exit=1`, `file=examples/classic/ranks.py`. */
  readonly attributes: Readonly<Record<string, string>>;
  readonly code: string;
  /** Of its first line of code in the document, from 1. */
  readonly line: number;
}

/** The fenced blocks of a Markdown document, in order. */
export function blocksOf(markdown: string): Block[] {
  const blocks: Block[] = [];
  let open: { info: string; line: number; code: string[] } | undefined;
  for (const [index, text] of markdown.split('\n').entries()) {
    const fence = /^```(.*)$/u.exec(text);
    if (open === undefined) {
      if (fence) open = { info: fence[1] ?? '', line: index + 2, code: [] };
    } else if (fence) {
      const [language = '', ...words] = open.info.trim().split(/\s+/u);
      const attributes = Object.fromEntries(words.map((word) => word.split('=', 2)));
      blocks.push({ language, attributes, code: open.code.join('\n'), line: open.line });
      open = undefined;
    } else {
      open.code.push(text);
    }
  }
  if (open !== undefined) throw new Error(`the block of line ${open.line} has no end`);
  return blocks;
}

/** Levels of the headings of a document, in order; comments in code are none. */
export function headingLevels(markdown: string): number[] {
  const prose = markdown.replaceAll(/^```.*?^```$/gmsu, '');
  return [...prose.matchAll(/^(#+) /gmu)].map(([, marks = '']) => marks.length);
}

/** Where a document links to, in order; what is in code blocks is no link. */
export function linkTargets(markdown: string): string[] {
  const prose = markdown.replaceAll(/^```.*?^```$/gmsu, '');
  return [...prose.matchAll(/\]\((?<target>[^)\s]+)\)/gu)].map(
    ({ groups }) => groups?.['target'] ?? '',
  );
}

/** The tables of a document, for each cell of each row the code in it: words differ from language to language. */
export function tablesOf(markdown: string): string[][][] {
  const prose = markdown.replaceAll(/^```.*?^```$/gmsu, '');
  const tables = prose.match(/^\|.*(?:\n\|.*)*/gmu) ?? [];
  return tables.map((table) =>
    table
      .split('\n')
      .filter((row) => !/^[|\s:-]+$/u.test(row))
      .flatMap((row) => row.split(/(?<!\\)\|/u).slice(1, -1))
      .map((cell) =>
        [...cell.matchAll(/`(?<code>[^`]+)`/gu)].map(({ groups }) => groups?.['code'] ?? ''),
      ),
  );
}
