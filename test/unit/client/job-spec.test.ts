import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { packageFile } from '../../../src/activities/jobs/submit.js';
import { jobFlagOf, duration, variable } from '../../../src/cli/job-options.js';
import {
  inspectWorkingDirectory,
  MOST_PACKAGE_BYTES,
  storePackage,
} from '../../../src/client/job-package.js';
import { prepareJob, shellCommand, type JobOptions } from '../../../src/client/job-spec.js';
import { readRuntimeEnv } from '../../../src/client/runtime-env.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'rankflow-job-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const put = (name: string, text = name): string => {
  const file = path.join(folder, name);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, text);
  return file;
};
const names = async (excludes: string[] = []): Promise<string[]> =>
  (await inspectWorkingDirectory(path.join(folder, 'work'), excludes)).files.map(
    ({ name }) => name,
  );

describe('a working directory', () => {
  it('is sent without what git, Ray or the user leave out', async () => {
    for (const name of ['a.py', 'sub/b.py', 'sub/c.log', 'data/large.bin', '.git/config']) {
      put(`work/${name}`);
    }
    put('work/__pycache__/a.pyc');
    put('work/notes/keep.txt');
    put('work/notes/drop.txt');
    put('work/.gitignore', '*.log\n');
    put('work/notes/.rayignore', '/drop.txt\n');
    expect(await names(['data/'])).toEqual([
      '.gitignore',
      'a.py',
      'notes/.rayignore',
      'notes/keep.txt',
      'sub/b.py',
    ]);
  });

  it('follows links to files and folders, and does not go round in circles', async () => {
    put('elsewhere/shared.py');
    put('work/a.py');
    symlinkSync(path.join(folder, 'elsewhere'), path.join(folder, 'work/lib'));
    symlinkSync(path.join(folder, 'work'), path.join(folder, 'work/self'));
    symlinkSync(path.join(folder, 'nowhere'), path.join(folder, 'work/broken'));
    expect(await names()).toEqual(['a.py', 'lib/shared.py']);
  });

  it('is the same package when its content is, and another one when a byte is', async () => {
    const work = path.join(folder, 'work');
    const run = put('work/run.sh', 'echo hello');
    const first = await inspectWorkingDirectory(work);
    put('work/run.sh', 'echo hello');
    expect((await inspectWorkingDirectory(work)).sha256).toBe(first.sha256);
    chmodSync(run, 0o755);
    const second = await inspectWorkingDirectory(work);
    expect(second.sha256).not.toBe(first.sha256);
    put('work/run.sh', 'echo Hello');
    expect((await inspectWorkingDirectory(work)).sha256).not.toBe(second.sha256);
  });

  it('is packed with the modes of its files, once', async () => {
    chmodSync(put('work/sub/run.sh', '#!/bin/sh\necho it runs\n'), 0o755);
    const place = { store: path.join(folder, 'store'), jobId: 'job' };
    const directory = await inspectWorkingDirectory(path.join(folder, 'work'));
    const stored = await storePackage(place, directory);
    expect(stored).toMatchObject({ sha256: directory.sha256, files: 1 });
    expect(await storePackage(place, directory)).toEqual(stored);
    const out = path.join(folder, 'out');
    // As Ray unpacks it, with Python's zipfile and the modes in the attributes.
    const unpack = `
import sys, zipfile, os
with zipfile.ZipFile(sys.argv[1]) as z:
    for i in z.infolist():
        p = z.extract(i, sys.argv[2])
        os.chmod(p, i.external_attr >> 16)`;
    execFileSync('python3', ['-c', unpack, packageFile(place, directory.sha256), out]);
    expect(execFileSync(path.join(out, 'sub/run.sh'), { encoding: 'utf8' })).toBe('it runs\n');
  });

  it('is refused when it is too large, with what makes it so', async () => {
    put('work/a.py');
    const large = put('work/model/weights.bin', '');
    execFileSync('truncate', ['-s', String(MOST_PACKAGE_BYTES), large]);
    await expect(inspectWorkingDirectory(path.join(folder, 'work'))).rejects.toMatchObject({
      type: 'Usage',
      message: expect.stringContaining('model/weights.bin'),
      wayOut: expect.stringContaining('.gitignore'),
    });
  });

  it('is refused when it is none', async () => {
    const nothing = path.join(folder, 'nothing');
    await expect(inspectWorkingDirectory(nothing)).rejects.toThrow(/is no folder/u);
    mkdirSync(nothing);
    await expect(inspectWorkingDirectory(nothing)).rejects.toThrow(/no files/u);
  });
});

describe('a runtime environment', () => {
  it('is read from YAML, with the files that it names', async () => {
    put('requirements.txt', '# what it needs\nnumpy==2.0\n\nrequests\n');
    put('environment.yml', 'dependencies: [python]\n');
    const file = put(
      'env.yaml',
      'pip: requirements.txt\nconda: environment.yml\nworking_dir: code\nexcludes: ["*.bin"]\nenv_vars: {A: "1"}\n',
    );
    expect(await readRuntimeEnv(file)).toEqual({
      value: {
        pip: ['numpy==2.0', 'requests'],
        conda: { dependencies: ['python'] },
        env_vars: { A: '1' },
      },
      workingDir: path.join(folder, 'code'),
      excludes: ['*.bin'],
    });
  });

  it('keeps a remote working directory for Ray', async () => {
    const file = put('env.json', JSON.stringify({ working_dir: 's3://bucket/code.zip' }));
    expect((await readRuntimeEnv(file)).value).toEqual({ working_dir: 's3://bucket/code.zip' });
  });

  it('is refused with all that is wrong with it, secrets included', async () => {
    const file = put(
      'env.yaml',
      'pips: []\npy_modules: [./local]\nenv_vars: {HF_TOKEN: abc, N: 1, RANKFLOW_ATTEMPT: "3"}\n',
    );
    const error = await readRuntimeEnv(file).catch((caught: Error) => caught);
    expect(error).toMatchObject({ type: 'Usage' });
    const { message } = error as Error;
    for (const part of ['pips', 'py_modules', 'HF_TOKEN looks like a secret', 'N is no text']) {
      expect(message).toContain(part);
    }
    expect(message).toContain('RANKFLOW_ATTEMPT is set by Rankflow');
    expect(message).not.toContain('abc');
  });

  it('takes variables that only sound like secrets', async () => {
    const file = put('env.yaml', 'env_vars: {TOKENIZERS_PARALLELISM: "false", MAX_TOKENS: "8"}\n');
    expect((await readRuntimeEnv(file)).value).toEqual({
      env_vars: { TOKENIZERS_PARALLELISM: 'false', MAX_TOKENS: '8' },
    });
  });
});

describe('a job', () => {
  const prepare = async (options: Partial<JobOptions> = {}) =>
    prepareJob(
      { entrypoint: ['python', 'a b.py', "it's"], store: path.join(folder, 'store'), ...options },
      jobFlagOf,
    );

  it('is named by what is run, unless it has a name', async () => {
    const { spec } = await prepare();
    expect(spec.entrypoint).toBe(String.raw`python 'a b.py' 'it'\''s'`);
    expect(spec.jobId).toMatch(/^job-[0-9a-f]{12}$/u);
    expect((await prepare({ retries: 3 })).spec.jobId).toBe(spec.jobId);
    expect((await prepare({ env: { A: '1' } })).spec.jobId).not.toBe(spec.jobId);
    expect((await prepare({ name: 'train' })).spec.jobId).toBe('train');
    expect((await prepare({ name: 'train', fresh: true })).spec.jobId).toMatch(/^train-\w{6}$/u);
  });

  it('names secrets by variable or file', async () => {
    const { spec } = await prepare({ secrets: ['HF_TOKEN', 'KEY=/run/key'] });
    expect(spec.secrets).toEqual([{ name: 'HF_TOKEN' }, { name: 'KEY', file: '/run/key' }]);
  });

  it('is refused with all that is wrong, by the names of the options', async () => {
    const error = await prepare({
      name: 'Bad Name',
      store: 's3://bucket/x',
      retries: -1,
      secrets: ['KEY=relative'],
      resources: { numCpus: 'two' },
      env: { DB_PASSWORD: 'hunter2' },
      workingDir: path.join(folder, 'none'),
    }).catch((caught: Error) => caught);
    expect(error).toMatchObject({ type: 'Usage' });
    const { message } = error as Error;
    for (const option of ['--name', '--store', '--retries', '--secret', '--num-cpus', '--env']) {
      expect(message).toContain(`${option}:`);
    }
    expect(message).toContain('--working-dir:');
    expect(message).not.toContain('hunter2');
  });

  it('takes times and variables as people write them', () => {
    expect(['90', '90s', '1.5m', '2h', '1d'].map(duration)).toEqual([90, 90, 90, 7200, 86_400]);
    expect(() => duration('soon')).toThrow(/90s, 30m or 2h/u);
    expect(variable('A=b=c', { Z: '' })).toEqual({ Z: '', A: 'b=c' });
    expect(() => variable('A')).toThrow(/NAME=VALUE/u);
    expect(shellCommand(['a && b'])).toBe('a && b');
  });
});
