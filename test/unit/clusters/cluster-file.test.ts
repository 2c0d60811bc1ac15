import { readdirSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';

import { describe, expect, it } from 'vitest';

import { installPlan } from '../../../src/activities/ssh/environment.js';
import { ClientError } from '../../../src/client/errors.js';
import {
  isClusterFile,
  parseClusterFile,
  readClusterFile,
} from '../../../src/clusters/cluster-file.js';
import { describePlan } from '../../../src/clusters/describe.js';
import { expandHosts } from '../../../src/clusters/members.js';
import type { SshProvider } from '../../../src/contracts/cluster.js';
import { paths } from '../../../src/setup/paths.js';

const EXAMPLES = path.join(paths.packageRoot, 'examples/clusters');

const MINIMAL = `name: lab
provider: ssh
head: 10.0.0.1
environment: {python: /venv/bin/python}
`;
const parse = (text: string): SshProvider => {
  const { nodes } = parseClusterFile(text, '/clusters/lab.yaml');
  if (nodes.provider !== 'ssh') throw new Error(nodes.provider);
  return nodes;
};
/** `line: message` of each problem. */
function problemsOf(text: string): string[] {
  try {
    parse(text);
  } catch (error) {
    if (error instanceof ClientError)
      return error.problems.map(({ line, message }) => `${line}: ${message}`);
    throw error;
  }
  return [];
}

describe('a cluster file', () => {
  it.each(readdirSync(EXAMPLES).filter((file) => file.endsWith('.yaml')))(
    '%s is a good example',
    (file) => {
      const spec = readClusterFile(path.join(EXAMPLES, file));
      expect(spec.name).toMatch(/^[a-z]+$/u);
      expect(describePlan(spec).length).toBeGreaterThan(0);
      expect(readFileSync(path.join(EXAMPLES, file), 'utf8')).toContain(
        'schemas/cluster.schema.json',
      );
    },
  );

  it('names files from its own folder, and fills in what it leaves out', () => {
    const { ssh, ports, head, workers, count, tokenAuth, directory, gcsStorage } = parse(MINIMAL);
    expect(ssh).toEqual({ knownHosts: '/clusters/known_hosts' });
    expect(ports).toEqual({ gcs: 6379, dashboard: 8265, client: 10_001 });
    expect(head).toEqual({ name: 'head', host: '10.0.0.1' });
    expect({ workers, count, tokenAuth, directory, gcsStorage }).toEqual({
      ...{ workers: [], count: 0, tokenAuth: true, directory: '/tmp', gcsStorage: 'memory' },
    });
  });

  it('goes by itself after as many minutes as it says, and stays when it says nothing', () => {
    expect(parse(`${MINIMAL}idleTimeoutMinutes: 480`).idleMinutes).toBe(480);
    expect(parse(MINIMAL).idleMinutes).toBeUndefined();
    expect(problemsOf(`${MINIMAL}idleTimeoutMinutes: 0`)).toEqual([
      expect.stringMatching(/^5: idleTimeoutMinutes/u),
    ]);
  });

  it('names an existing cluster by a URL and a port, and its token from here or from home', () => {
    const theirs = (address: string, url: string): string =>
      `name: a\nprovider: existing\naddress: ${address}\ndashboardUrl: ${url}\n`;
    for (const [address, url] of [
      ['10.0.0.1:6379', 'http://10.0.0.1:8265'],
      ['ray-head:6379', 'https://ray.example.org/'],
      ["'[fd00::1]:6379'", "'http://[fd00::1]:8265'"],
    ]) {
      expect(parseClusterFile(theirs(address ?? '', url ?? ''), '/a.yaml').nodes.provider).toBe(
        'existing',
      );
    }
    const bad = [
      ['ray-head', 'ray-head:8265'],
      ['10.0.0.1:port', 'nonsense'],
      [':6379', 'http://'],
    ];
    for (const [address = '', url = ''] of bad) {
      expect(problemsOf(theirs(address, url))).toEqual([
        expect.stringMatching(/^3: address: expected HOST:PORT/u),
        expect.stringMatching(/^4: dashboardUrl: expected http:\/\/HOST:PORT/u),
      ]);
    }
    const file = theirs('h:1', 'http://h:2');
    const tokenFile = (where: string): unknown =>
      parseClusterFile(`${file}tokenFile: ${where}\n`, '/clusters/lab.yaml').nodes;
    expect(tokenFile('tok')).toMatchObject({ tokenFile: '/clusters/tok' });
    expect(tokenFile('~/tok')).toMatchObject({ tokenFile: path.join(homedir(), 'tok') });
  });

  it('spells out ranges and groups; what a group does not want is a spare', () => {
    const { workers, count } = parse(`${MINIMAL}workers:
  - 10.0.0.[8-10]
  - {group: gpu, hosts: [g1, g2, g3], count: 1, labels: {kind: a100}}
spares: [last]
`);
    expect(count).toBe(4);
    expect(workers.map(({ name, host }) => `${name}@${host}`)).toEqual([
      ...['10.0.0.8@10.0.0.8', '10.0.0.9@10.0.0.9', '10.0.0.10@10.0.0.10', 'gpu-1@g1'],
      ...['gpu-2@g2', 'gpu-3@g3', 'last@last'],
    ]);
    expect(workers[3]?.labels).toEqual({ kind: 'a100' });
    expect(expandHosts('node-[08-11].example')).toEqual(
      ['08', '09', '10', '11'].map((number) => `node-${number}.example`),
    );
  });

  it('takes a set-up command as text for the shell of the node, or word by word', () => {
    const { setup } = parse(`${MINIMAL}setup: ['a && b', [mkdir, '-p', 'x y']]\n`);
    expect(setup).toEqual([
      ['sh', '-c', 'a && b'],
      ['mkdir', '-p', 'x y'],
    ]);
  });

  it('names the Python that is going to be installed by what is installed', () => {
    const { nodes } = readClusterFile(path.join(EXAMPLES, 'spot-group.yaml'));
    if (nodes.provider !== 'ssh') throw new Error(nodes.provider);
    const { requirements, python = '' } = nodes.environment;
    expect(requirements).toContain('ray[default]');
    expect(python).toMatch(/^~\/\.cache\/rankflow\/environments\/[0-9a-f]{16}\/bin\/python$/u);
    const [step] = installPlan(nodes.environment).steps;
    expect(step?.input).toBe(requirements);
    expect(step?.command.join(' ')).toContain(path.dirname(path.dirname(python.slice(2))));
    expect(installPlan({ ...nodes.environment, requirements: 'ray\n' }).python).not.toBe(python);
  });

  it('is refused with all of its problems at once, each with its line', () => {
    const problems = problemsOf(`name: Lab
provider: ssh
head: {host: 10.0.0.1, labels: {zone: 'a b'}}
colour: blue
workers:
  - {host: 10.0.0.2, resources: {num_cpus: -1, custom: {GPU: 1}}}
  - {group: g, hosts: [x], size: 3}
  - '-oProxyCommand=true'
ssh:
  port: 70000
environment:
  python: /venv/bin/python
  image: a
  conda: e.yml
`);
    const at = (line: number): string[] => problems.filter((text) => text.startsWith(`${line}: `));
    expect(at(1).join()).toMatch(/name/u);
    expect(at(3).join()).toMatch(/head\.labels\.zone: expected a label value/u);
    expect(at(4).join()).toMatch(/there is no setting colour/u);
    expect(at(6).join()).toMatch(/workers\.0\.resources\.num_cpus/u);
    expect(at(6).join()).toMatch(/use num_cpus and num_gpus/u);
    expect(at(7).join()).toMatch(/there is no setting size/u);
    expect(at(8).join()).toMatch(/workers\.2: expected a host/u);
    expect(at(10).join()).toMatch(/ssh\.port/u);
    expect(at(11).join()).toMatch(/give exactly one of python, requirements, conda and image/u);
  });

  it('may name the Python of its requirements to the patch version', () => {
    const folder = path.join(paths.pythonProject, 'requirements.txt');
    const withVersion = (version: string): string =>
      MINIMAL.replace(
        'python: /venv/bin/python',
        `requirements: ${folder}, pythonVersion: ${version}`,
      );
    const { environment } = parse(withVersion('3.11.13'));
    expect(installPlan(environment).steps[0]?.command.at(-1)).toBe('3.11.13');
    expect(problemsOf(withVersion("'3'"))).toEqual([
      '4: environment.pythonVersion: expected 3.11 or 3.11.13',
    ]);
  });

  it('mounts absolute paths, each place once, into containers only', () => {
    const withMounts = (mounts: string, source = 'image: a'): string =>
      `name: lab\nprovider: ssh\nhead: a\nenvironment: { ${source}, mounts: [${mounts}] }\n`;
    const nodes = parse(withMounts('/data, "/a b:/b", "/c:/d:ro", "/e:ro"'));
    expect(nodes.environment.mounts).toEqual(['/data', '/a b:/b', '/c:/d:ro', '/e:ro']);
    expect(describePlan({ name: 'lab', nodes }).join('\n')).toContain(
      "in a container of a, in the host's network, with /data, /a b:/b, /c:/d:ro, /e:ro:",
    );
    for (const wrong of ['data', '"/a:b"', '"/a:/b:rw"', '/', '"/a:/"', '"/a:/b:/c"']) {
      expect(problemsOf(withMounts(wrong)), wrong).toEqual([
        expect.stringMatching(/^4: environment\.mounts\.0: expected PATH, PATH:PATH-IN-CONTAINER/u),
      ]);
    }
    expect(problemsOf(withMounts('/a, "/b:/a:ro"'))).toEqual([
      '4: environment.mounts.1: /a is mounted twice',
    ]);
    expect(problemsOf(withMounts('/a', 'python: p'))).toEqual([
      '4: environment.mounts: only a container needs mounts: give an image',
    ]);
  });

  it('is refused when two nodes have one host or name, or more are wanted than there are', () => {
    const problems = problemsOf(`${MINIMAL}workers:
  - 10.0.0.1
  - {name: x, host: a}
  - {name: x, host: b}
  - {group: g, hosts: [c, d], count: 3}
`);
    expect(problems).toEqual([
      '6: workers.0: 10.0.0.1 is the host of head, too',
      '8: workers.2: there are two nodes called x',
      '9: workers.3.count: 3 nodes are wanted of 2 hosts',
    ]);
  });

  it('is refused where Ray would refuse a node', () => {
    const problems = problemsOf(`${MINIMAL}workers:
  - {host: b, labels: {zone: a/b}}
  - {name: c-, host: c}
  - {host: d, labels: {example.org/zone: a_b.c, a//b: x}}
`);
    expect(problems).toEqual([
      '6: workers.0.labels.zone: expected a label value',
      '7: workers.1.name: expected lower-case letters, digits, and within them . and -',
      '8: workers.2.labels.a//b: expected a label name',
    ]);
  });

  it('is refused when a host would be two nodes, or a range is a slip of the finger', () => {
    const problems = problemsOf(`${MINIMAL}workers:
  - {host: 10.0.0.1, ssh: {port: 22}}
  - n[1-5000]
  - n[9-8]
`);
    expect(problems).toEqual([
      '6: workers.0: 10.0.0.1 is the host of head, too',
      '7: workers.1: n[1-5000] stands for 5000 hosts, and a range for 1024 at most',
      '8: workers.2: n[9-8] stands for no host',
    ]);
  });

  it('may have two nodes on one address when ssh finds them at other ports', () => {
    const ssh = 'ssh: {port: 2222}\nworkers:\n  - {name: b, host: 10.0.0.1, ssh: {port: ';
    expect(parse(`${MINIMAL}${ssh}2223}}\n`).workers).toHaveLength(1);
    expect(problemsOf(`${MINIMAL}${ssh}2222}}\n`)).toHaveLength(1);
  });

  it('calls a host as Ray can take it', () => {
    const names = parse(`${MINIMAL}workers: ['fe80::', _a, B.c]\n`).workers.map(({ name }) => name);
    expect(names).toEqual(['fe80', 'a', 'b.c']);
  });

  it('is refused when ports meet, or a file that it names is not there', () => {
    const problems = problemsOf(
      MINIMAL.replace('{python: /venv/bin/python}', '{requirements: none.txt}') +
        'ports:\n  gcs: 8265\n  nodeManager: 20005\n  workers: 20000-20999\n',
    );
    expect(
      problemsOf(`${MINIMAL}ports: {metricsExport: 9003, dashboardAgentGrpc: 9003}\n`),
    ).toEqual(['5: ports.metricsExport: 9003 is the port of dashboardAgentGrpc, too']);
    expect(problems.join('\n')).toMatch(/^4: environment\.requirements: cannot be read: ENOENT/mu);
    expect(problems.join('\n')).toMatch(/^6: .*8265 is the port of .*, too|8265 is the port/mu);
    expect(problems.join('\n')).toMatch(
      /^7: ports\.nodeManager: 20005 lies among the ports of workers/mu,
    );
  });

  it('is refused as YAML with the line', () => {
    expect(problemsOf('name: lab\nname: twice\nhead: [\n')[0]).toMatch(
      /^2: Map keys must be unique/u,
    );
    expect(problemsOf('provider: aws\nname: x\n')).toEqual([
      '1: provider: expected local, ssh or existing',
    ]);
    expect(problemsOf('')).toHaveLength(1);
  });

  it('is told from the name of a cluster', () => {
    expect(isClusterFile('cluster.yaml')).toBe(true);
    expect(isClusterFile('./lab')).toBe(true);
    expect(isClusterFile('local')).toBe(false);
    // Files and folders of this project, where tests run.
    expect(isClusterFile('LICENSE')).toBe(true);
    expect(isClusterFile('docs')).toBe(false);
  });

  it('is shown as steps for each node, with neither token nor secrets', () => {
    const text = describePlan({
      name: 'lab',
      nodes: parse(`${MINIMAL}workers: [w]\nspares: [s]\nsetup: ['true']\n`),
    }).join('\n');
    expect(text).toMatch(/^head on 10\.0\.0\.1:$/mu);
    expect(text).toMatch(/^w on w:$/mu);
    expect(text).toMatch(/^s on s: spare$/mu);
    expect(text).toMatch(/ray start --block .*--head/u);
    expect(text).toMatch(/--address=HEAD:6379/u);
    expect(text).toContain('run sh -c true');
  });
});
