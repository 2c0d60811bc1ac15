import { expect, test } from 'vitest';

import { blocksOf, headingLevels } from './markdown.js';
import { missingLines } from './shape.js';

test('numbers, times, addresses and ids of a listing may differ, and nothing else', () => {
  const same = (listing: string, output: string): boolean =>
    missingLines(listing, output).length === 0;
  expect(same('generating (1m04s) | 0/200 rows', 'generating (56s) | 40/200 rows')).toBe(true);
  expect(same('engine 0: node 127.0.0.3, pid 81', 'engine 0: node 10.1.0.14, pid 1234')).toBe(true);
  expect(same('run-6245c0de1de7abf3', 'run-ffa0c0de1de71234')).toBe(true);
  expect(same(' 2.0/2.0  CPU', '   0.0/16.0 CPU')).toBe(true);
  expect(same('RuntimeError: … has died', 'RuntimeError: engine 3 has died')).toBe(true);
  expect(same('2 rows succeeded', '2 rows failed')).toBe(false);
  expect(same('2 rows', '2 rows and more')).toBe(false);
});

test('lines of a listing may be left out, but not change places', () => {
  const output = 'one\ntwo\nthree\n';
  expect(missingLines('one\n…\nthree', output)).toEqual([]);
  expect(missingLines('three\none', output)).toEqual(['one']);
  expect(missingLines('four', output)).toEqual(['four']);
});

test('blocks have their language, their attributes and the line where their code begins', () => {
  const document =
    '# Title\n\n```sh exit=1\n# no heading\nfalse\n```\n\n## More\n\n```\nplain\n```\n';
  expect(blocksOf(document)).toEqual([
    { language: 'sh', attributes: { exit: '1' }, code: '# no heading\nfalse', line: 4 },
    { language: '', attributes: {}, code: 'plain', line: 11 },
  ]);
  expect(headingLevels(document)).toEqual([1, 2]);
  expect(() => blocksOf('```sh\ntrue\n')).toThrow('line 2');
});
