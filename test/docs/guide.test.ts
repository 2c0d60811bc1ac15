import { mkdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

import getPort from 'get-port';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { MARKER } from '../../src/activities/local/node-command.js';
import { killMarked, markedProcesses } from '../../src/activities/local/marked-processes.js';
import { paths } from '../../src/setup/paths.js';
import { DataFolder } from '../e2e/rankflow.js';
import { blocksOf } from './markdown.js';
import { Session } from './session.js';
import { missingLines } from './shape.js';

/** Two engines load within one block; on a busy machine that takes its time. */
const BLOCK_MS = 300_000;
const GUIDE = path.join(paths.packageRoot, 'docs/guide.md');
const HEAD = '127.0.0.2';

const blocks = blocksOf(readFileSync(GUIDE, 'utf8'));
const commands = blocks.filter(({ language }) => language === 'sh');
const marker = `guide-${process.pid}`;

let folder: DataFolder;
let session: Session;
/** The block that failed: what comes after it would only fail of the same. */
let broken: number | undefined;

beforeAll(async () => {
  folder = new DataFolder();
  const gcs = await getPort({ host: HEAD });
  const dashboard = await getPort({ host: HEAD, exclude: [gcs] });
  const client = await getPort({ host: HEAD, exclude: [gcs, dashboard] });
  const scripts = folder.file('scripts');
  mkdirSync(scripts);
  const environment = {
    ...process.env,
    RANKFLOW_HOME: folder.home,
    TEMPORAL_CONFIG_FILE: folder.file('none.toml'),
    HF_HUB_OFFLINE: '1',
    // Whatever a block starts inherits it, and is found by it in the end.
    [MARKER]: marker,
    GUIDE: folder.file('g'),
    GCS_PORT: String(gcs),
    DASHBOARD_PORT: String(dashboard),
    CLIENT_PORT: String(client),
  };
  for (const name of ['TEMPORAL_ADDRESS', 'TEMPORAL_NAMESPACE', 'RAY_ADDRESS']) {
    Reflect.deleteProperty(environment, name);
  }
  session = new Session(paths.packageRoot, environment, scripts);
});

afterAll(async () => {
  session.close();
  await killMarked(marker);
  await folder.remove('guide');
}, BLOCK_MS);

test('every block is a command, what it prints, or an excerpt of a file', () => {
  for (const [index, { language, attributes, line }] of blocks.entries()) {
    expect(['sh', 'text', 'python'], `line ${line}`).toContain(language);
    if (language === 'text') expect(blocks[index - 1]?.language, `line ${line}`).toBe('sh');
    if (language === 'python') expect(attributes['file'], `line ${line}`).toBeDefined();
  }
  expect(commands.length).toBeGreaterThan(10);
});

test.each(blocks.filter(({ language }) => language === 'python'))(
  'the listing of line $line is in the file that it names, and that file is run',
  ({ attributes: { file = '' }, code }) => {
    const listed = readFileSync(path.join(paths.packageRoot, file), 'utf8');
    for (const part of code.split(/^ *…\n/mu)) expect(listed).toContain(part);
    expect(commands.some((block) => block.code.includes(path.dirname(file)))).toBe(true);
  },
);

test.each(commands)(
  'the commands of line $line do what the guide says',
  async ({ line, code, attributes: { exit = '0' } }) => {
    expect(broken, 'the block of this line failed before').toBeUndefined();
    broken = line;
    const started = Date.now();
    const { status, output } = await session.run(code, BLOCK_MS);
    console.log(`line ${line}, ${Math.round((Date.now() - started) / 1000)} s:\n${output}`);
    expect(String(status), output).toBe(exit);
    const listing = blocks[blocks.findIndex((block) => block.line === line) + 1];
    if (listing?.language === 'text') {
      expect(missingLines(listing.code, output), output).toEqual([]);
    }
    broken = undefined;
  },
  BLOCK_MS + 10_000,
);

test('nothing that the guide starts is left when its last command has ended', async () => {
  const left = (): number[] => markedProcesses(marker).filter((pid) => pid !== session.pid);
  await expect.poll(left, { timeout: 30_000, interval: 500 }).toEqual([]);
}, 40_000);
