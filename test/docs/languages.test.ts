import { readFileSync } from 'node:fs';
import path from 'node:path';

import { describe, expect, test } from 'vitest';

import { paths } from '../../src/setup/paths.js';
import { blocksOf, headingLevels, linkTargets, tablesOf } from './markdown.js';

const read = (file: string): string => readFileSync(path.join(paths.packageRoot, file), 'utf8');

describe.each([
  ['README.md', 'README.zh-CN.md'],
  ['docs/guide.md', 'docs/guide.zh-CN.md'],
])('%s and %s', (english, chinese) => {
  test('have the same code blocks', () => {
    const codes = (file: string) =>
      blocksOf(read(file)).map(({ language, attributes, code }) => [language, attributes, code]);
    expect(codes(chinese)).toEqual(codes(english));
    expect(codes(english).length).toBeGreaterThan(1);
  });

  test('have the same headings', () => {
    expect(headingLevels(read(chinese))).toEqual(headingLevels(read(english)));
  });

  test('have tables of the same shape with the same code', () => {
    expect(tablesOf(read(chinese))).toEqual(tablesOf(read(english)));
  });

  test('link to the same places', () => {
    const targets = (file: string): string[] =>
      linkTargets(read(file))
        .map((target) => target.replace('.zh-CN.md', '.md'))
        // A heading of a translation has another name.
        .map((target) => (target.startsWith('#') ? '#' : target))
        .toSorted();
    expect(targets(chinese)).toEqual(targets(english));
    expect(targets(english).length).toBeGreaterThan(1);
  });

  test('link to each other', () => {
    expect(read(english)).toContain(`](${path.basename(chinese)})`);
    expect(read(chinese)).toContain(`](${path.basename(english)})`);
  });

  test('link to files that are there', () => {
    for (const file of [english, chinese]) {
      for (const [, target = ''] of read(file).matchAll(/\]\((?!https?:)([^)#]+)/gu)) {
        expect(
          () => read(path.join(path.dirname(file), target)),
          `${file}: ${target}`,
        ).not.toThrow();
      }
    }
  });
});
