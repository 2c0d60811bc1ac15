import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { Command } from 'commander';
import { execa } from 'execa';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { register } from '../../../src/cli/serve.js';
import { nodeFlagsOf, readModels } from '../../../src/cli/serve-models.js';
import { paths } from '../../../src/setup/paths.js';

const program = path.join(paths.packageRoot, 'dist/cli/main.js');
let home: string;
beforeAll(() => {
  home = mkdtempSync(path.join(tmpdir(), 'rankflow-serve-'));
});
afterAll(() => rmSync(home, { recursive: true }));

const rankflow = (...args: string[]) =>
  execa(process.execPath, [program, 'serve', ...args], {
    reject: false,
    env: { RANKFLOW_HOME: home, TEMPORAL_ADDRESS: undefined },
  });

/** The models of a command line. */
async function models(...args: string[]) {
  const root = new Command().exitOverride();
  register(root);
  const serve = root.commands[0];
  if (serve === undefined) throw new Error('there is no command');
  let flags = {};
  serve.action((given: object) => {
    flags = given;
  });
  await root.parseAsync(['serve', ...args], { from: 'user' });
  return readModels({ ...(flags as Parameters<typeof readModels>[0]), store: '/store' }, serve);
}

test('each --model is served under its name, with the options of all', async () => {
  const served = await models(
    ...['--model', 'org/a', '--model', './models/b', '--engines', '2', '--temperature', '0'],
  );
  expect([...served.keys()]).toEqual(['org/a', 'b']);
  expect(served.get('b')).toMatchObject({
    model: { model: './models/b' },
    engines: 2,
    sampling: { temperature: 0 },
    store: '/store',
  });
});

test('engines stay up between batches and refused rows are error lines, unless told otherwise', async () => {
  const asIs = (await models('--model', 'm')).get('m');
  expect(asIs).toMatchObject({ keep: true, onInvalid: 'record' });
  const told = (await models('--model', 'm', '--no-keep', '--on-invalid', 'refuse')).get('m');
  expect(told).toMatchObject({ keep: false, onInvalid: 'refuse' });
});

test('a file gives each model the options that differ for it', async () => {
  const file = path.join(home, 'models.json');
  writeFileSync(file, '{"org/a": {"engines": 4, "maxModelLen": 512}, "org/b": {}}');
  const served = await models('--models', file, '--engines', '1');
  expect(served.get('org/a')).toMatchObject({ engines: 4, model: { maxModelLen: 512 } });
  expect(served.get('org/b')).toMatchObject({ engines: 1 });
  writeFileSync(file, '{"org/a": {"engins": 4, "port": 1}, "org/b": 3}');
  await expect(models('--models', file)).rejects.toThrow(
    'org/a: engins is no option of a model\norg/a: port is no option of a model\norg/b: expected',
  );
});

test('what is said about the nodes of a cluster is known for each model', async () => {
  const file = path.join(home, 'models.json');
  writeFileSync(file, '{"org/a": {"cluster": "lab", "nodes": 2}, "org/b": {"cluster": "lab"}}');
  const served = await models('--models', file, '--model', 'org/c', '--gcs-storage', 'rocksdb');
  const asked = [...served].map(([id, options]) => [id, nodeFlagsOf(options)]);
  const gcsStorage = 'rocksdb';
  expect(Object.fromEntries(asked)).toMatchObject({
    'org/a': { nodes: 2, gcsStorage },
    'org/b': { nodes: undefined, gcsStorage },
    'org/c': { nodes: undefined, gcsStorage },
  });
});

test.each([
  [[], /at least one model/u],
  [['--model', 'a', '--model', 'b', '--fleet', 'f'], /a fleet serves one model/u],
  [['--model', './x/m', '--model', './y/m'], /Two models would be named m/u],
])('models that cannot be served are told: %j', async (args, message) => {
  await expect(models(...args)).rejects.toThrow(message);
});

test('bad options of every model are told before anything is started', async () => {
  const { exitCode, stdout, stderr } = await rankflow(
    ...['--model', 'org/a', '--model', 'org/b', '--dtype', 'int3'],
  );
  expect([exitCode, stdout]).toEqual([2, '']);
  expect(stderr).toMatch(/org\/a: --dtype.*\n.*org\/b: --dtype/u);
  const bucket = await rankflow('--model', 'org/a', '--store', 's3://bucket/x');
  expect([bucket.exitCode, bucket.stderr]).toEqual([2, expect.stringContaining('no folder')]);
});

test('keys are made, listed without their secrets, and revoked', async () => {
  const store = path.join(home, 'elsewhere');
  const none = await rankflow('keys', 'list', '--store', store);
  expect([none.exitCode, none.stdout]).toEqual([0, '']);
  const created = await rankflow('keys', 'create', 'nightly', '--store', store);
  expect([created.exitCode, created.stdout]).toEqual([0, expect.stringMatching(/^rf-\S+$/u)]);
  expect(created.stderr).not.toContain(created.stdout);

  const listed = await rankflow('keys', 'list', '--store', store, '--json');
  const [key] = JSON.parse(listed.stdout) as { id: string; name: string }[];
  expect(key).toEqual({
    id: key?.id,
    name: 'nightly',
    namespace: key?.id,
    createdAt: expect.any(String),
  });
  expect(existsSync(path.join(store, 'api/keys', `${key?.id}.json`))).toBe(true);
  const revoked = await rankflow('keys', 'revoke', key?.id ?? '', '--store', store);
  expect([revoked.exitCode, revoked.stdout]).toEqual([0, key?.id]);
  expect((await rankflow('keys', 'list', '--store', store)).stdout).toMatch(/nightly.*revoked/u);
  const unknown = await rankflow('keys', 'revoke', 'nobody', '--store', store);
  expect([unknown.exitCode, unknown.stderr]).toEqual([2, expect.stringContaining('no key nobody')]);
});
