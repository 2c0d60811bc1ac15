import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import { differences, reconcile, runParameters } from '../../../src/client/identity.js';
import {
  prepareRun,
  prepareTemplate,
  type PreparedRun,
  type RunOptions,
} from '../../../src/client/inference.js';
import { defaultFleetName, resolveModel } from '../../../src/client/model.js';
import { plannedParameters, storedResult } from '../../../src/client/stored.js';
import { ModelSpec } from '../../../src/contracts/model.js';

const CPU_HOST = async () => ({ cpus: 4, gpus: 0 });
const name = (text: string): string => text;

let folder: string;
let input: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'rankflow-prepare-'));
  input = path.join(folder, 'in.jsonl');
  writeFileSync(input, '{"prompt":"hello"}\n');
});
afterEach(() => rmSync(folder, { recursive: true }));

const prepare = (options: Partial<RunOptions> = {}, host = CPU_HOST): Promise<PreparedRun> =>
  prepareRun(
    { input: { uri: input }, model: { model: 'org/model' }, store: folder, ...options },
    name,
    host,
  );

test('the same content, model and sampling is the same run, wherever the file lies', async () => {
  const first = await prepare({ sampling: { temperature: 0, seed: 1 } });
  const copy = path.join(folder, 'copy.jsonl');
  writeFileSync(copy, '{"prompt":"hello"}\n');
  const second = await prepare({ input: { uri: copy }, sampling: { seed: 1, temperature: 0 } });
  expect(second.inference.run.runId).toBe(first.inference.run.runId);
  expect(first.inference.run.runId).toMatch(/^run-[0-9a-f]{16}$/u);
});

test('another content, model or sampling is another run', async () => {
  const ids = await Promise.all([
    prepare(),
    prepare({ sampling: { seed: 2 } }),
    prepare({ model: { model: 'org/other' } }),
    prepare({ input: { uri: input, limit: 1 } }),
  ]);
  expect(new Set(ids.map(({ inference }) => inference.run.runId)).size).toBe(4);
});

test('--new gives a fresh id each time', async () => {
  const [first, second] = [await prepare({ fresh: true }), await prepare({ fresh: true })];
  expect(first.inference.run.runId).not.toBe(second.inference.run.runId);
});

test('all problems of the options are named at once', async () => {
  const options = {
    input: { uri: path.join(folder, 'none.jsonl'), format: 'xml' },
    model: { model: 'org/model', dtype: 'int3', maxModelLen: 'many' },
    ranks: 0,
    affinity: 'none',
  };
  const { message } = await prepare(options).then(
    () => expect.fail('was accepted'),
    (error: Error) => error,
  );
  for (const part of [
    'does not exist',
    'run.input.format',
    'dtype',
    'maxModelLen',
    'ranks',
    'affinity',
  ]) {
    expect(message).toContain(part);
  }
});

test('engines share the cores of a machine without GPUs, and get whole GPUs where there are some', async () => {
  const { model } = (await prepare({ engines: 3 })).inference.run;
  expect(model).toMatchObject({ cpusPerEngine: 1, gpusPerEngine: 0 });
  const { run } = (await prepare({ engines: 1 })).inference;
  expect(run.model.cpusPerEngine).toBe(4);
  const onGpus = await prepare(
    { model: { model: 'org/model', tensorParallelSize: 2 } },
    async () => ({ cpus: 16, gpus: 4 }),
  );
  expect(onGpus.inference.run.model).toMatchObject({ cpusPerEngine: 1, gpusPerEngine: 2 });
});

test('another number of engines is the same run on the same fleet', async () => {
  const [one, two] = [await prepare({ engines: 1, ranks: 2 }), await prepare({ engines: 2 })];
  expect(one.inference.run.model.cpusPerEngine).not.toBe(two.inference.run.model.cpusPerEngine);
  expect(two.inference.run.runId).toBe(one.inference.run.runId);
  expect(two.inference.fleet.name).toBe(one.inference.fleet.name);
  expect(reconcile(two, runParameters(one.inference.run, one.inputSha256))).toEqual([]);
});

test('ranks default to the engines, and what is given wins over defaults', async () => {
  const { run, fleet } = (await prepare({ engines: 2 })).inference;
  expect([run.ranks, fleet.engines]).toEqual([2, 2]);
  const given = await prepare({ engines: 2, ranks: 8, model: { model: 'm/m', cpusPerEngine: 1 } });
  expect(given.inference.run).toMatchObject({ ranks: 8, model: { cpusPerEngine: 1 } });
});

test('an input in a bucket is not read when the user names the run', async () => {
  const run = await prepare({ input: { uri: 's3://b/in.jsonl' }, runId: 'mine' });
  expect(run.inference.run).toMatchObject({ runId: 'mine', input: { uri: 's3://b/in.jsonl' } });
});

test('a model is found as a folder, by its installed name, or left to the hub', () => {
  mkdirSync(path.join(folder, 'tiny'));
  writeFileSync(path.join(folder, 'tiny', 'config.json'), '{}');
  expect(resolveModel('tiny', folder)).toBe(path.join(folder, 'tiny'));
  expect(resolveModel(path.join(folder, 'tiny'), '/none')).toBe(path.join(folder, 'tiny'));
  expect(resolveModel('org/tiny', folder)).toBe('org/tiny');
  expect(() => resolveModel('./nowhere', folder)).toThrow(/has no config\.json/u);
});

test.each([
  'org/Model-7B.Instruct_v0',
  '/x/a-very-long-name-of-a-model-that-goes-on',
  '模型',
  '---',
])('the fleet of %s has a valid name that another spec does not share', (model) => {
  const [one, other] = [ModelSpec.parse({ model }), ModelSpec.parse({ model, dtype: 'float32' })];
  expect(defaultFleetName(one)).toMatch(/^[a-z0-9][a-z0-9-]{0,31}$/u);
  expect(defaultFleetName(one)).not.toBe(defaultFleetName(other));
});

test('a named run with other parameters is refused with the difference', async () => {
  const before = await prepare({ runId: 'mine', sampling: { temperature: 0 }, ranks: 2 });
  const { run } = before.inference;
  const now = await prepare({ runId: 'mine', sampling: { temperature: 1 }, ranks: 4 });
  expect(() => reconcile(now, runParameters(run, before.inputSha256))).toThrow(
    /mine has other parameters:\n {2}ranks: 2 before, 4 now\n {2}sampling\.temperature: 0 before, 1 now/u,
  );
});

test('an unnamed run that was cut up in another way keeps its plan', async () => {
  const before = await prepare({ ranks: 2 });
  const now = await prepare({ ranks: 4, batch: { maxRows: 8 } });
  const notes = reconcile(now, runParameters(before.inference.run, before.inputSha256));
  expect(now.inference.run).toMatchObject({ ranks: 2, batch: { maxRows: 1024 } });
  expect(notes).toHaveLength(2);
});

test('a named run that a release with other limits of batches planned keeps them', async () => {
  const before = await prepare({ runId: 'mine', batch: { maxRows: 256 } });
  const earlier = runParameters(before.inference.run, before.inputSha256);
  const now = await prepare({ runId: 'mine' });
  expect(reconcile(now, earlier)).toEqual([
    'Keeping the plan that is there: batch.maxRows: 256 before, 1024 now',
  ]);
  expect(now.inference.run).toMatchObject({ batch: { maxRows: 256 } });
  const asked = await prepare({ runId: 'mine', batch: { maxRows: 8 } });
  expect(() => reconcile(asked, earlier)).toThrow(/batch\.maxRows: 256 before, 8 now/u);
});

test('a template is compared and never kept in the clear', async () => {
  const template = 'a private {prompt}';
  const { inference, inputSha256 } = await prepare({ input: { uri: input, template } });
  const parameters = runParameters(inference.run, inputSha256);
  expect(JSON.stringify(parameters)).not.toContain('private');
  const other = runParameters(
    { ...inference.run, input: { ...inference.run.input, template: 'another {prompt}' } },
    inputSha256,
  );
  expect(differences(parameters, other)).toHaveLength(1);
});

test('a plan and a manifest in a local store are found without a server', async () => {
  const run = await prepare({ ranks: 2 });
  const { runId } = run.inference.run;
  expect(await plannedParameters(run)).toBeUndefined();
  expect(await storedResult(folder, runId)).toBeUndefined();
  const runFolder = path.join(folder, 'runs', runId);
  mkdirSync(runFolder, { recursive: true });
  const summary = { inputSha256: run.inputSha256 };
  writeFileSync(
    path.join(runFolder, 'plan.json'),
    JSON.stringify({ spec: run.inference.run, summary }),
  );
  expect(reconcile(run, (await plannedParameters(run)) ?? {})).toEqual([]);
  writeFileSync(
    path.join(runFolder, 'manifest.json'),
    JSON.stringify({ state: 'completed', rows: 3, succeeded: 2, failed: 1, promptTokens: 9 }),
  );
  expect(await storedResult(folder, runId)).toMatchObject({
    state: 'completed',
    output: { rows: 3, failed: 1, outputUri: path.join(runFolder, 'output.jsonl') },
  });
  writeFileSync(path.join(runFolder, 'plan.json'), '{');
  await expect(plannedParameters(run)).rejects.toThrow(/cannot be read/u);
});

test('a run says how many rows an engine has in work, and so do those of a schedule', async () => {
  const options = { model: { model: 'org/model', maxNumSeqs: 64 }, store: folder };
  const { inference } = await prepare(options);
  expect(inference.fleet.rowsPerEngine).toBe(96);
  const template = await prepareTemplate({ input: { uri: '' }, ...options }, name, CPU_HOST);
  expect(template.fleet.rowsPerEngine).toBe(96);
  const onGpu = await prepare({ ...options, model: { ...options.model, gpusPerEngine: 1 } });
  expect(onGpu.inference.fleet.rowsPerEngine).toBe(160);
});
