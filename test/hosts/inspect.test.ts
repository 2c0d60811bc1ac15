import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { Network } from '../../chaos/network/network.js';
import { hostReportText } from '../../src/cli/host-report.js';
import type { HostReport } from '../../src/hosts/alike/facts.js';
import { portsToReach } from '../../src/hosts/alike/ports.js';
import { refusalText } from '../../src/hosts/alike/refusal.js';
import { inspectHosts, type InspectedHost, type InspectOptions } from '../../src/hosts/inspect.js';
import { paths } from '../../src/setup/paths.js';
import { namespaceHost, whyNoNamespaces } from '../support/namespace-host.js';

const NAMES = ['head', 'a', 'b'] as const;
const reason = whyNoNamespaces();
if (reason !== undefined) console.warn(`hosts are not looked at: ${reason}`);
const ports = portsToReach({ gcs: 6379, dashboard: 8265, client: 10_001 });

let network: Network;
let folder: string;
let server: Server;
let temporal: string;

async function setUp(): Promise<void> {
  network = Network.create(NAMES);
  folder = mkdtempSync(path.join(tmpdir(), 'rf-hosts-'));
  mkdirSync(path.join(folder, 'store'));
  // This machine is on the bridge; any service that accepts stands for Temporal.
  const address = network.host('head').address.replace(/\d+$/u, '1');
  server = createServer((socket) => socket.end());
  await new Promise<void>((resolve) => {
    server.listen(0, address, resolve);
  });
  temporal = `${address}:${(server.address() as { port: number }).port}`;
}

function tearDown(): void {
  server.close();
  network.remove();
  rmSync(folder, { recursive: true, force: true });
}

type Changes = Partial<InspectedHost> & { readonly mounts?: Readonly<Record<string, string>> };

function hosts(changes: Partial<Record<(typeof NAMES)[number], Changes>> = {}): InspectedHost[] {
  return NAMES.map((name) => {
    const { mounts, ...rest } = changes[name] ?? {};
    return {
      host: namespaceHost(network.host(name), mounts),
      role: name === 'head' ? 'head' : 'worker',
      engines: name !== 'head',
      address: network.host(name).address,
      python: [paths.python],
      env: { PYTHONPATH: paths.pythonProject },
      folders: { temporary: folder },
      ...rest,
    };
  });
}

const inspect = async (
  changes: Parameters<typeof hosts>[0] = {},
  options: Partial<InspectOptions> = {},
): Promise<HostReport> =>
  inspectHosts(hosts(changes), { ports, temporal, store: path.join(folder, 'store'), ...options });

/** `a → b` for each pair of which a port is not reached. */
const cutPairs = ({ reach }: HostReport): string[] => [
  ...new Set(
    reach.filter(({ outcome }) => outcome !== 'reached').map(({ from, to }) => `${from} → ${to}`),
  ),
];

/** What refuses, by what was looked at. */
const refusals = ({ findings }: HostReport): string[] =>
  findings.filter(({ severity }) => severity === 'refuses').map(({ what }) => what);

/** A folder in front of the environment that makes it look like another one. */
function disguise(name: string, files: Readonly<Record<string, string>>): string {
  for (const [file, text] of Object.entries(files)) {
    const target = path.join(folder, name, file);
    mkdirSync(path.dirname(target), { recursive: true });
    writeFileSync(target, text);
  }
  return [path.join(folder, name), paths.pythonProject].join(':');
}

/** Processes in the namespaces of the hosts. */
const left = (): string[] =>
  network.hosts.flatMap(({ namespace }) =>
    execFileSync('ip', ['netns', 'pids', namespace], { encoding: 'utf8' })
      .split('\n')
      .filter(Boolean),
  );

describe.skipIf(reason !== undefined)('three hosts', () => {
  beforeAll(setUp);
  afterAll(tearDown);

  it('that are alike and reach each other are found fit, and nothing of the search stays', async () => {
    const report = await inspect();
    expect(refusalText(report)).toBe('');
    expect(report.refused).toBe(false);
    expect(cutPairs(report)).toEqual([]);
    // Five ports of each node, three more of the head, and Temporal for each.
    expect(report.reach).toHaveLength(2 * 8 + 4 * 5 + 3);
    expect(report.reach.every(({ milliseconds = -1 }) => milliseconds >= 0)).toBe(true);
    expect(report.hosts.map(({ name }) => name)).toEqual(['head', 'a', 'b']);
    expect(new Set(report.hosts.map(({ fingerprint }) => fingerprint?.packagesHash)).size).toBe(1);
    expect(report.hosts[0]?.fingerprint?.versions['ray']).toMatch(/^\d+\.\d+/u);
    expect(readdirSync(path.join(folder, 'store'))).toEqual([]);
    expect(left()).toEqual([]);
  });

  it('of which two are cut off from one another: the matrix shows just that pair', async () => {
    const [a, b] = [network.host('a'), network.host('b')];
    network.cut(a, b.address);
    try {
      const report = await inspect();
      expect(cutPairs(report).toSorted()).toEqual(['a → b', 'b → a']);
      const outcome = (from: string, to: string): string[] => [
        ...new Set(
          report.reach.filter((c) => c.from === from && c.to === to).map((c) => c.outcome),
        ),
      ];
      expect(outcome('a', 'b')).toEqual(['unroutable']);
      // What b sends arrives, the answer does not.
      expect(outcome('b', 'a')).toEqual(['timed-out']);
      expect(refusals(report)).toEqual(['reach', 'reach']);
      expect(refusalText(report)).toContain(`a → b: no route at ${b.address}`);
      expect(hostReportText(report)).toContain('no answer');
    } finally {
      network.join(a, b.address);
    }
    expect(cutPairs(await inspect())).toEqual([]);
  });

  it('of which one has another Python or Ray are refused, with what to install where', async () => {
    const other = await inspect({
      a: {
        env: {
          PYTHONPATH: disguise('other-ray', {
            'ray-2.59.0.dist-info/METADATA': 'Metadata-Version: 2.1\nName: ray\nVersion: 2.59.0\n',
          }),
        },
      },
      b: {
        env: {
          PYTHONPATH: disguise('other-python', {
            'sitecustomize.py': 'import platform\nplatform.python_version = lambda: "3.12.1"\n',
          }),
        },
      },
    });
    expect(other.refused).toBe(true);
    expect(refusals(other).toSorted()).toEqual(['Python', 'Ray']);
    expect(refusalText(other)).toMatch(/Install Ray \d+\.\d+\.\d+ on a:/u);
    expect(refusalText(other)).toMatch(/Use Python 3\.\d+ on b:/u);
  });

  it('of which one has no environment still tells what that host is', async () => {
    const python = ['/opt/not-there/bin/python'];
    const report = await inspect({ b: { python } });
    expect(refusals(report)).toEqual(['environment']);
    expect(report.hosts[2]?.fingerprint?.cpus).toBeGreaterThan(0);
    expect(cutPairs(report)).toEqual([]);
    const later = await inspect({ b: { python, environmentLater: true } });
    expect(later.refused).toBe(false);
  });

  it('that have a folder each under the same name share no store', async () => {
    mkdirSync(path.join(folder, 'disk-of-b'));
    const mounts = { [path.join(folder, 'store')]: path.join(folder, 'disk-of-b') };
    const report = await inspect({ b: { mounts } });
    expect(refusals(report)).toEqual(['store']);
    expect(refusalText(report)).toContain('b: does not see what head, a wrote');
    expect(readdirSync(path.join(folder, 'disk-of-b'))).toEqual([]);
  });

  it('whose Temporal is on the loopback, or whose address is on no interface, are refused', async () => {
    const report = await inspect(
      { b: { address: '192.0.2.77' } },
      { temporal: '127.0.0.1:7233', store: undefined },
    );
    expect(new Set(refusals(report))).toEqual(new Set(['Temporal', 'address']));
    expect(refusalText(report)).toContain(network.host('b').address);
  });
});
