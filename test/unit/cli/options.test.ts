import { homedir } from 'node:os';
import path from 'node:path';

import { Command } from 'commander';
import { expect, test } from 'vitest';

import { errorsFileOf, resultFormat } from '../../../src/cli/outcome.js';
import { failureText, problemLine, table } from '../../../src/cli/output.js';
import {
  addModelOptions,
  addPlacementOptions,
  addRequestOptions,
  flagOf,
  jsonObject,
  keyValue,
  type RunFlags,
  toRunOptions,
} from '../../../src/cli/run-options.js';
import type { RunOptions } from '../../../src/client/inference.js';

function parse(...args: string[]): RunOptions {
  const command = new Command().exitOverride();
  addPlacementOptions(addRequestOptions(addModelOptions(command)));
  command.parse(['--model', 'org/model', ...args], { from: 'user' });
  return toRunOptions('in.jsonl', command.opts<RunFlags>());
}

test('engine arguments keep their JSON types, and dashes become underscores', () => {
  const { model } = parse('--engine-arg', 'enforce-eager=true', '--engine-arg', 'name=a=b');
  expect(model.engineArgs).toEqual({ enforce_eager: true, name: 'a=b' });
  expect(keyValue('n=8', { a: 1 })).toEqual({ a: 1, n: 8 });
  expect(() => keyValue('novalue')).toThrow(/key=value/u);
});

test('named sampling options win over --sampling', () => {
  const { sampling } = parse(
    ...['--sampling', '{"temperature": 1, "min_p": 0.1}', '--temperature', '0'],
    ...['--stop', 'a', '--stop', 'b'],
  );
  expect(sampling).toEqual({ temperature: 0, min_p: 0.1, stop: ['a', 'b'] });
  expect(() => jsonObject('[1]')).toThrow(/JSON object/u);
});

test('a number that is none is left for the check that names all problems', () => {
  expect(parse('--engines', '2', '--ranks', 'four')).toMatchObject({ engines: 2, ranks: 'four' });
});

test('an address makes it an existing cluster, else it is a local one', () => {
  expect(parse('--nodes', '2').cluster).toEqual({
    name: 'local',
    nodes: { provider: 'local', workers: 2 },
  });
  const given = ['--address', 'h:6379', '--dashboard-url', 'http://h:8265', '--cluster', 'big'];
  expect(parse(...given).cluster).toMatchObject({
    name: 'big',
    nodes: { provider: 'existing', address: 'h:6379', dashboardUrl: 'http://h:8265' },
  });
});

test('the hub token travels as the name of a variable or file, never as a value', () => {
  expect(parse('--hf-token-env', 'HF_TOKEN').model.credentials).toEqual({ env: 'HF_TOKEN' });
  expect(parse('--hf-token-file', '/run/token').model.credentials).toEqual({ file: '/run/token' });
});

test('files are named in full, as workers and engines read them elsewhere', () => {
  const given = ['--address', 'h:1', '--dashboard-url', 'http://h:2', '--ray-token-file', 'token'];
  expect(parse(...given).cluster).toMatchObject({ nodes: { tokenFile: path.resolve('token') } });
  expect(parse(...given.slice(0, 4), '--ray-token-file=~/t').cluster).toMatchObject({
    nodes: { tokenFile: path.join(homedir(), 't') },
  });
  const { model } = parse('--hf-token-file', 'hub', '--cache-dir', 'cache');
  expect(model).toMatchObject({
    credentials: { file: path.resolve('hub') },
    cacheDir: path.resolve('cache'),
  });
});

test('problems are named by the flag to change', () => {
  expect(flagOf('run.model.maxModelLen')).toBe('--max-model-len');
  expect(flagOf('fleet.engines')).toBe('--engines');
  expect(flagOf('run.batch.maxRows')).toBe('--batch-rows');
  expect(flagOf('run.input.uri')).toBe('FILE');
});

test('errors go beside the results', () => {
  expect(errorsFileOf('/a/results.jsonl')).toBe('/a/results.errors.jsonl');
  expect(errorsFileOf('/a/results.parquet')).toBe('/a/results.errors.jsonl');
});

test('the format follows the file name unless it is given; Parquet needs a file', () => {
  expect(resultFormat(undefined, 'a.parquet')).toBe('parquet');
  expect(resultFormat('jsonl', 'a.parquet')).toBe('jsonl');
  expect(resultFormat(undefined, undefined)).toBe('jsonl');
  expect(() => resultFormat('parquet', undefined)).toThrow(/--out|terminal/u);
  expect(() => resultFormat('xml', 'a')).toThrow(/neither jsonl nor parquet/u);
});

test('problems are listed with their lines, and how many are not shown', () => {
  const text = failureText({
    type: 'InvalidInput',
    message: 'the input has 3 problems',
    problems: [{ line: 4, customId: 'd', code: 'invalid_json', message: 'not JSON' }],
    totalProblems: 3,
    wayOut: 'Mend it.',
    exitCode: 2,
  });
  expect(text).toContain('line 4 (d): [invalid_json] not JSON');
  expect(text).toContain('... and 2 more');
  expect(text).toContain('Mend it.');
  expect(problemLine({ line: 0, code: 'empty', message: 'm' })).toContain('the file: [empty] m');
});

test('columns of a table line up', () => {
  expect(
    table([
      ['run', 'status'],
      ['a-long-id', 'ok'],
    ]),
  ).toBe('run        status\na-long-id  ok');
});
