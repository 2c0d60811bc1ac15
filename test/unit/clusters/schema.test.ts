import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

import { Ajv2020 } from 'ajv/dist/2020.js';
import { expect, test } from 'vitest';
import { parse } from 'yaml';

import { paths } from '../../../src/setup/paths.js';

const read = (file: string): string => readFileSync(path.join(paths.packageRoot, file), 'utf8');
const schema = JSON.parse(read('schemas/cluster.schema.json')) as object;
const isGood = new Ajv2020({ strict: true }).compile(schema);
const examples = readdirSync(path.join(paths.packageRoot, 'examples/clusters')).filter((file) =>
  file.endsWith('.yaml'),
);

test.each(examples)('the schema for editors takes the example %s', (file) => {
  expect(isGood(parse(read(`examples/clusters/${file}`))), JSON.stringify(isGood.errors)).toBe(
    true,
  );
});

test.each([
  ['a key that there is not', 'name: lab\nprovider: ssh\nhead: a\nenvironment: {pyhton: p}\n'],
  ['a port as text', 'name: lab\nprovider: ssh\nhead: a\nenvironment: {}\nports: {gcs: "6379"}\n'],
  ['no provider', 'name: lab\nhead: a\n'],
  [
    'a label that Ray refuses',
    'name: l\nprovider: ssh\nhead: {host: a, labels: {b: c/d}}\nenvironment: {}\n',
  ],
])('the schema for editors refuses %s', (_, text) => {
  expect(isGood(parse(text))).toBe(false);
});

test('the schema for editors takes what is refused above, put right', () => {
  const right =
    'name: lab\nprovider: ssh\nhead: {host: a, labels: {b: c}}\nenvironment: {python: p}\nports: {gcs: 6379}\n';
  expect(isGood(parse(right))).toBe(true);
});
