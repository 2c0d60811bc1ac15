import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';

import { buildIn, isOlder, releaseOf } from '../../src/workers/build.js';
import { mayTakeOver, type BuildState, type Deployment } from '../../src/workers/deployment.js';
import type { StackConfig } from '../../src/workers/stack/config.js';
import { endedOf } from '../../src/workers/stack/draining.js';

describe('the id of a build', () => {
  let root: string;
  const code = () => path.join(root, 'one', 'dist');
  beforeEach(() => {
    root = mkdtempSync(path.join(tmpdir(), 'rankflow-build-'));
    mkdirSync(path.join(code(), 'workflows'), { recursive: true });
    mkdirSync(path.join(code(), 'cli'));
    writeFileSync(path.join(root, 'one', 'package.json'), '{"version": "1.2.3"}');
    writeFileSync(path.join(code(), 'workflows', 'run.js'), 'export const a = 1;\n');
    writeFileSync(path.join(code(), 'cli', 'main.js'), 'say();\n');
  });
  afterEach(() => rmSync(root, { recursive: true, force: true }));

  it('is the release and a hash of the code, wherever that lies', () => {
    const { id, release } = buildIn(code());
    expect(release).toBe('1.2.3');
    expect(id).toMatch(/^1\.2\.3-[0-9a-f]{12}$/u);
    expect(releaseOf(id)).toBe('1.2.3');
    cpSync(path.join(root, 'one'), path.join(root, 'other'), { recursive: true });
    expect(buildIn(path.join(root, 'other', 'dist')).id).toBe(id);
  });

  it('is another one when the code of a worker is, and not for a command of the CLI', () => {
    const { id } = buildIn(code());
    writeFileSync(path.join(code(), 'cli', 'main.js'), 'say("more");\n');
    writeFileSync(path.join(code(), 'workflows', 'run.d.ts'), 'export declare const a: 1;\n');
    expect(buildIn(code()).id).toBe(id);
    writeFileSync(path.join(code(), 'workflows', 'run.js'), 'export const a = 2;\n');
    expect(buildIn(code()).id).not.toBe(id);
  });

  it('tells which release is older', () => {
    expect(isOlder('0.9.0', '0.10.0')).toBe(true);
    expect(isOlder('0.10.0', '0.9.0')).toBe(false);
    expect(isOlder('0.10.0', '0.10.0')).toBe(false);
    expect(releaseOf('1.0.0-rc.1-0123456789ab')).toBe('1.0.0-rc.1');
  });
});

describe('the copy of a build', () => {
  it('is made anew when its package was moved, and only then', async () => {
    const home = mkdtempSync(path.join(tmpdir(), 'rankflow-kept-'));
    onTestFinished(() => rmSync(home, { recursive: true, force: true }));
    vi.stubEnv('RANKFLOW_HOME', home);
    vi.resetModules();
    onTestFinished(() => void vi.unstubAllEnvs());
    const { buildFolder, keepBuild } = await import('../../src/workers/stack/builds.js');
    const own = { id: '1.2.3-0123456789ab', release: '1.2.3' };
    keepBuild(own);
    const kept = path.join(buildFolder(own.id), 'kept.json');
    const written = readFileSync(kept, 'utf8');
    const mark = path.join(buildFolder(own.id), 'mark');
    writeFileSync(mark, '');
    keepBuild(own);
    expect(existsSync(mark)).toBe(true);
    writeFileSync(kept, JSON.stringify({ packageRoot: path.join(home, 'gone'), build: own.id }));
    keepBuild(own);
    expect(existsSync(mark)).toBe(false);
    expect(readFileSync(kept, 'utf8')).toBe(written);
  });
});

const [A, B] = ['0.1.0-aaaaaaaaaaaa', '0.2.0-bbbbbbbbbbbb'];
const deployment = (
  current: string | undefined,
  builds: Record<string, BuildState>,
): Deployment => ({
  ...(current !== undefined && { current }),
  builds: new Map(Object.entries(builds)),
  token: new Uint8Array(),
});
const build = (id: string) => ({ id, release: releaseOf(id) });

it.each([
  ['the first one', A, deployment(undefined, { [A]: 'inactive' }), 'take'],
  ['the one that is it', A, deployment(A, { [A]: 'current' }), 'is current'],
  ['a newer release', B, deployment(A, { [A]: 'current', [B]: 'inactive' }), 'take'],
  [
    'an older release',
    A,
    deployment(B, { [A]: 'inactive', [B]: 'current' }),
    'a newer release is current',
  ],
  [
    'another build of the release',
    '0.1.0-cccccccccccc',
    deployment(A, { [A]: 'current', '0.1.0-cccccccccccc': 'inactive' }),
    'take',
  ],
  [
    'a build that was replaced by one of its release, and is started again',
    A,
    deployment('0.1.0-cccccccccccc', { [A]: 'draining', '0.1.0-cccccccccccc': 'current' }),
    'was current before',
  ],
  [
    'a newer release that people went back from',
    B,
    deployment(A, { [A]: 'current', [B]: 'drained' }),
    'was current before',
  ],
] as const)('%s becomes the current build, or not', (_what, own, known, verdict) => {
  expect(mayTakeOver(build(own), known)).toBe(verdict);
});

it('a build goes when nothing is pinned to it, and only when it is on its way out', () => {
  const worker = (id: string, draining: boolean): StackConfig['processes'][number] => ({
    ...{ name: 'control-worker', role: 'worker', command: 'node', args: [], env: {}, graceMs: 1 },
    ...{ build: id, draining },
  });
  const config = (...workers: StackConfig['processes']): StackConfig => ({
    ...{ address: 'x', namespace: 'default', ownsServer: true, build: B, processes: workers },
  });
  const both = config(worker(B, false), worker(A, true));
  const ended = (state: BuildState) => endedOf(both, deployment(B, { [A]: state, [B]: 'current' }));
  expect(ended('draining')).toEqual([]);
  expect(ended('current')).toEqual([]);
  expect(ended('drained')).toEqual([A]);
  expect(endedOf(both, undefined)).toEqual([A]);
  expect(endedOf(config(worker(B, false)), undefined)).toEqual([]);
});
