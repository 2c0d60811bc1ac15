/**
 * Lines of a listing that are not in an output in this order. They are compared by shape: numbers, times, addresses
 * and ids may differ, and `…` stands for anything.
 */
export function missingLines(listing: string, output: string): string[] {
  const lines = output.split('\n');
  const missing: string[] = [];
  let from = 0;
  for (const expected of listing
    .split('\n')
    .filter((line) => line.trim().replace('…', '') !== '')) {
    const shape = shapeOf(expected);
    const at = lines.findIndex((line, index) => index >= from && shape.test(line.trim()));
    if (at === -1) missing.push(expected);
    else from = at + 1;
  }
  return missing;
}

/** What may differ, with what it may be instead. */
const VARIABLE: Readonly<Record<string, string>> = {
  anything: '.*',
  space: String.raw`\s+`,
  time: String.raw`[\dhms]+`,
  id: '[0-9a-f]{8,}',
  number: String.raw`\d[\d.,:]*`,
};
const PIECE =
  /(?<anything>…)|(?<space>\s+)|(?<time>(?:\d+h)?(?:\d+m)?\d+s\b)|(?<id>\b(?=[a-f]*\d)[0-9a-f]{8,})|(?<number>\d[\d.,:]*)|(?<fixed>.)/gu;

function shapeOf(line: string): RegExp {
  const pieces = [...line.trim().matchAll(PIECE)].map(({ groups = {} }) => {
    const kind = Object.keys(VARIABLE).find((name) => groups[name] !== undefined);
    return kind === undefined ? escaped(groups['fixed'] ?? '') : VARIABLE[kind];
  });
  return new RegExp(`^${pieces.join('')}$`, 'u');
}

const escaped = (text: string): string => text.replaceAll(/[\\^$.*+?()[\]{}|/]/gu, String.raw`\$&`);
