import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { afterAll, beforeAll, expect, test } from 'vitest';

import { type Inspection, inspectBatch } from '../../../src/server/inspect.js';
import { line, MODEL } from '../../support/api-server.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'rankflow-inspect-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

async function inspect(text: string | Buffer, maxRows = 1_000): Promise<Inspection> {
  const file = path.join(folder, 'in.jsonl');
  writeFileSync(file, text);
  const models = new Set([MODEL, 'other']);
  return inspectBatch(file, { endpoint: '/v1/chat/completions', models, maxRows });
}

/** `line code param` of each problem. */
const told = (found: Inspection): string[] => {
  if (!('problems' in found)) throw new Error('there are no problems');
  return found.problems.map(({ line, code, param }) => `${line} ${code} ${param}`);
};

test('good requests are counted, and their model is found', async () => {
  const lines = [line('a'), '', line('b'), '  ', line('c')];
  expect(await inspect(lines.join('\n'))).toEqual({ model: MODEL, rows: 3 });
  expect(await inspect(`\uFEFF${line('a')}\r\n${line('b')}\r\n`)).toEqual({
    model: MODEL,
    rows: 2,
  });
});

test('every problem of every line is told with its line, in the words of the original', async () => {
  const found = await inspect(
    [
      line('a'),
      '{broken',
      line('a'),
      '[1]',
      '{}',
      line('b', { method: 'GET', url: '/v1/embeddings' }),
      line('c', { body: 'text' }),
      line('d', {}, { model: undefined }),
      line('e', {}, { model: 'unknown' }),
      line('f', {}, { model: 'other' }),
      line('g', {}, { stream: true }),
      line('h', { custom_id: 7 }),
    ].join('\n'),
  );
  expect(told(found)).toEqual([
    '2 invalid_json_line null',
    '3 duplicate_custom_id custom_id',
    '4 invalid_json_line null',
    '5 missing_required_parameter custom_id',
    '5 missing_required_parameter method',
    '5 missing_required_parameter url',
    '5 missing_required_parameter body',
    '6 invalid_method method',
    '6 invalid_url url',
    '7 invalid_type body',
    '8 invalid_request body.model',
    '9 model_not_found body.model',
    '10 mismatched_model body.model',
    '11 streaming_unsupported body.stream',
    '12 invalid_type custom_id',
  ]);
  expect(JSON.stringify(found)).toContain('This line is not parseable as valid JSON.');
});

test('no message repeats what a request says', async () => {
  const secret = 'open sesame';
  const found = await inspect(
    [`{"${secret}"`, line(secret), line(secret), line('x', {}, { model: secret })].join('\n'),
  );
  expect(told(found)).toHaveLength(3);
  expect(JSON.stringify(found)).not.toContain('sesame');
});

test('a line separator inside of a text ends no line, nor does a piece of the file', async () => {
  const text = 'é\u2028'.repeat(70_000);
  const long = line('a', {}, { messages: [{ role: 'user', content: text }] });
  expect(await inspect(`${long}\n${line('b')}\n{`)).toMatchObject({
    rows: 3,
    problems: [{ line: 3 }],
  });
});

test('an empty file and one with too many requests are told as such', async () => {
  expect(told(await inspect('\n\n'))).toEqual(['null empty_file null']);
  const many = Array.from({ length: 5 }, (_, n) => line(`${n}`)).join('\n');
  expect(told(await inspect(many, 4))).toEqual(['null too_many_tasks null']);
  expect(await inspect(many, 5)).toMatchObject({ rows: 5 });
});

test('a line too long to be held is told and skipped', async () => {
  const long = Buffer.alloc(17 * 1024 * 1024, 'x');
  const text = Buffer.concat([Buffer.from(`${line('a')}\n`), long, Buffer.from('\n{')]);
  expect(told(await inspect(text))).toEqual(['2 line_too_long null', '3 invalid_json_line null']);
});

test('of very many problems the first hundred are told, and how many more there are', async () => {
  const found = await inspect('x\n'.repeat(250));
  expect(told(found)).toHaveLength(101);
  expect(told(found).at(-1)).toBe('null too_many_errors null');
  expect(JSON.stringify(found)).toContain('150 more problems');
});
