/**
 * Publishes the cluster file's JSON Schema for editors, `schemas/cluster.schema.json`: part of `npm run contracts`.
 * With `--check` it fails when the file is stale.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { z } from 'zod';

import { ClusterFile } from '../dist/contracts/cluster-file.js';

const file = fileURLToPath(new URL('../schemas/cluster.schema.json', import.meta.url));
const schema = {
  ...z.toJSONSchema(ClusterFile, { io: 'input' }),
  title: 'Rankflow cluster file',
};
const text = `${JSON.stringify(schema, undefined, 2)}\n`;

if (process.argv.includes('--check')) {
  if (!existsSync(file) || readFileSync(file, 'utf8') !== text) {
    console.error(
      'schemas/cluster.schema.json is stale: run `npm run contracts` and commit the result.',
    );
    process.exitCode = 1;
  }
} else {
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, text);
}
