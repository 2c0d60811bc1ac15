import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';

import { describe, expect, test } from 'vitest';

import { paths } from '../../src/setup/paths.js';

/** Rows of the table of threats: its cells. */
function threats(): string[][] {
  const text = readFileSync(path.join(paths.packageRoot, 'docs/security.md'), 'utf8');
  const section = text.slice(text.indexOf('## Threats'));
  const rows = section.split('\n').filter((line) => line.startsWith('| '));
  return rows.slice(2).map((row) =>
    row
      .slice(1, -1)
      .split('|')
      .map((cell) => cell.trim()),
  );
}

/** Where a test of the table is: below the tests of either language. */
const fileOf = (name: string): string | undefined =>
  [`test/${name}`, `python-activities/tests/${name}`]
    .map((place) => path.join(paths.packageRoot, place))
    .find((file) => existsSync(file));

/** The test that a cell names: a file, maybe `::a_function`, maybe `: words of a title`. */
const NAMED = /`(?<file>[\w./-]+?)(?:::(?<func>\w+))?`(?:: (?<title>[^,`]+?)(?=,|$))?/gu;

describe('each line of the table of threats', () => {
  const rows = threats();

  test('says what stands against it, and with which test', () => {
    expect(rows.length).toBeGreaterThan(12);
    for (const [threat = '', against = '', tests = '', ...rest] of rows) {
      expect(against, threat).not.toBe('');
      expect([...tests.matchAll(NAMED)].length, threat).toBeGreaterThan(0);
      expect(rest, threat).toHaveLength(1);
    }
  });

  const named = rows.flatMap(([threat = '', , tests = '']) =>
    [...tests.matchAll(NAMED)].map(([text, ...rest]) => ({ text, threat, rest })),
  );

  test.each(named)(
    'names a test that there is: $text',
    ({ threat, rest: [file = '', func, title] }) => {
      const found = fileOf(file);
      expect(found, `${threat}: ${file}`).toBeDefined();
      const text = readFileSync(found ?? '', 'utf8');
      if (func !== undefined) expect(text).toContain(`def ${func}(`);
      if (title !== undefined) expect(text).toContain(title);
    },
  );
});
