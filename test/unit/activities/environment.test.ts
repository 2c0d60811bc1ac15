import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { installPlan, isLocked } from '../../../src/activities/ssh/environment.js';
import type { CommandResult } from '../../../src/hosts/host.js';
import { localHost } from '../../../src/hosts/local.js';

/** Makes a Python where the real tool does, and writes down what it was told; `cut` kills the shell that called it. */
const TOOL = `#!/bin/sh
echo "$@" >> "$HOME/said"
if [ -e "$HOME/cut" ]; then kill -9 "$PPID"; exit 1; fi
if [ -e "$HOME/fail" ]; then echo "no matching distribution" >&2; exit 1; fi
for word; do case "$before" in --prefix) folder=$word;; esac; before=$word; done
case "$1" in venv) folder=$word;; pip) exit 0;; esac
mkdir -p "$folder/bin"; : > "$folder/bin/python"
`;

let home: string;
const at = (name: string): string => path.join(home, name);
const said = (): string[] => readFileSync(at('said'), 'utf8').trim().split('\n');

beforeEach(() => {
  home = mkdtempSync(path.join(tmpdir(), 'rankflow-home-'));
  mkdirSync(at('bin'));
  // Nothing else: a tool of this machine must not be found.
  for (const tool of ['sh', 'cat', 'mkdir']) {
    const found = execFileSync('sh', ['-c', `command -v ${tool} || true`], { encoding: 'utf8' });
    if (found.startsWith('/')) symlinkSync(found.trim(), at(`bin/${tool}`));
  }
});
afterEach(() => rmSync(home, { recursive: true }));

const haveTool = (name: string): void => writeFileSync(at(`bin/${name}`), TOOL, { mode: 0o755 });

/** What df and du say, in KiB: free on the disk of the home, and taken by the environment. */
function haveRoom(free: number, taken: number): void {
  const df = `echo Filesystem; echo "/dev/sda1 9999999 1 ${free} 1% /"`;
  writeFileSync(at('bin/df'), `#!/bin/sh\n${df}\n`, { mode: 0o755 });
  writeFileSync(at('bin/du'), `#!/bin/sh\necho "${taken} $2"\n`, { mode: 0o755 });
}

async function install(environment: object): Promise<CommandResult> {
  const [step, ...others] = installPlan(environment).steps;
  if (step === undefined || others.length > 0) throw new Error('not one step');
  const env = { HOME: home, PATH: at('bin') };
  const input = step.input === undefined ? {} : { input: step.input };
  return localHost().run(step.command, { ...input, env, timeoutMs: step.timeoutMs });
}

describe.each([
  ['uv', 'requirements.txt', { requirements: 'ray==2.60.0\n', pythonVersion: '3.11.13' }],
  ['conda', 'environment.yml', { conda: 'dependencies: [python=3.11]\n' }],
])('an environment that %s makes', (tool, file, environment) => {
  const { python } = installPlan(environment);
  const folder = path.dirname(path.dirname(python.slice(2)));
  const text = 'requirements' in environment ? environment.requirements : environment.conda;

  it('is there once, with the file that it is made of', async () => {
    haveTool(tool);
    expect(await install(environment)).toMatchObject({ exitCode: 0 });
    expect(existsSync(at(python.slice(2)))).toBe(true);
    expect(readFileSync(at(path.join(folder, file)), 'utf8')).toBe(text);
    const first = said();
    expect(first).toEqual(
      tool === 'uv'
        ? [
            `venv --quiet --allow-existing --python 3.11.13 ${folder}`,
            `pip install --python ${folder}/bin/python --compile-bytecode -r ${folder}/${file}`,
          ]
        : [`env update --quiet --prefix ${at(folder)} --file ${folder}/${file}`],
    );
    expect(await install(environment)).toMatchObject({ exitCode: 0 });
    expect(said()).toEqual(first);
  });

  it('is refused where there is no such tool', async () => {
    const { exitCode, stderr } = await install(environment);
    expect(exitCode).toBe(127);
    expect(stderr).toContain(`${tool} is not here: install it for this user`);
    expect(existsSync(at(path.join(folder, 'ready')))).toBe(false);
  });

  it('is refused before anything is made where it has no room', async () => {
    haveTool(tool);
    haveRoom(900 * 1024, 0);
    const { room, look = [] } = installPlan(environment);
    expect(room).toBe(2 ** 30);
    const { exitCode, stderr } = await install(environment);
    expect([exitCode, stderr.trim()]).toEqual([
      28,
      `${home} has 900 MiB left, and the environment takes 1024 at least: free some space there, or make ~/.cache a link to a larger disk`,
    ]);
    expect(existsSync(at(folder))).toBe(false);
    const env = { HOME: home, PATH: at('bin') };
    expect(await localHost().run(look, { env, timeoutMs: 10_000 })).toMatchObject({
      ...{ exitCode: 28, stderr },
    });
    // An installation that was cut off has some of it already.
    haveRoom(900 * 1024, 200 * 1024);
    expect(await install(environment)).toMatchObject({ exitCode: 0 });
    haveRoom(0, 0);
    expect(await install(environment)).toMatchObject({ exitCode: 0 });
  });

  it.each(['fail', 'cut'])('is made again after the tool met %s', async (trouble) => {
    haveTool(tool);
    writeFileSync(at(trouble), '');
    expect((await install(environment)).exitCode).not.toBe(0);
    expect(existsSync(at(path.join(folder, 'ready')))).toBe(false);
    rmSync(at(trouble));
    expect(await install(environment)).toMatchObject({ exitCode: 0 });
    expect(existsSync(at(path.join(folder, 'ready')))).toBe(true);
    expect(existsSync(at(python.slice(2)))).toBe(true);
  });
});

it.each([
  ['vllm==0.32.0\n', 8],
  ['ray==2.60.0\nvllm-cpu==0.32.0 --hash=sha256:00\n', 8],
  ['torch\n', 1],
  ['ray[default]==2.60.0\n# vllm\n', 1],
])('%j takes %i GiB at least', (requirements, gib) => {
  expect(installPlan({ requirements }).room).toBe(gib * 2 ** 30);
});

describe('a requirements file', () => {
  const HASH = '--hash=sha256:00';

  it.each([
    [
      'each requirement has its hash',
      `a==1 ${HASH}\nb[x]==2 \\\n    ${HASH} \\\n    ${HASH}\n    # via a\n`,
    ],
    ['it has options', `--index-url https://example.org/simple\n-i x\n# b==2\na==1 ${HASH}\n`],
    ['lines end as on Windows', `a==1 \\\r\n    ${HASH}\r\n`],
  ])('is installed as it is where %s', async (_, requirements) => {
    expect(isLocked(requirements)).toBe(true);
    haveTool('uv');
    expect(await install({ requirements })).toMatchObject({ exitCode: 0 });
    expect(said().at(-1)).toContain('--compile-bytecode --no-deps --require-hashes -r ');
  });

  it.each([
    ['a requirement without one', `a==1 ${HASH}\nb==2\n`],
    ['one whose hash is a comment', `a==1 # ${HASH}\n`],
    ['another file', `a==1 ${HASH}\n-r more.txt\n`],
    ['a folder', `a==1 ${HASH}\n--editable ./b\n`],
    ['nothing', '# nothing\n'],
  ])('is resolved where it has %s', (_, requirements) => {
    expect(isLocked(requirements)).toBe(false);
  });
});
