import { readFileSync } from 'node:fs';
import path from 'node:path';

import { expect, test } from 'vitest';

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
