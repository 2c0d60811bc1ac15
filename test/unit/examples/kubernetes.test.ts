import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';

import { describe, expect, it } from 'vitest';

import { paths } from '../../../src/setup/paths.js';
import { readCompose } from '../../support/compose.js';
import {
  MANIFESTS,
  Manifest,
  type PodContainer,
  type PodSpec,
  madeBy,
} from '../../support/manifests.js';

const inPackage = (file: string): string =>
  readFileSync(path.join(paths.packageRoot, file), 'utf8');
const [temporal, rankflow, api] = MANIFESTS.map((file) => Manifest.read(file)) as [
  Manifest,
  Manifest,
  Manifest,
];
/** Without the lines for the batch API. */
const alone = Manifest.read(MANIFESTS[1] ?? '', false);
const all = [temporal, rankflow, api];
const workloads = all.flatMap((manifest) => manifest.workloads);
const services = all.flatMap((manifest) => manifest.of('Service'));
const pods = all.flatMap(({ templates }) => templates.map(({ spec }) => spec));
const containersOf = (pod: PodSpec): PodContainer[] => [
  ...(pod.initContainers ?? []),
  ...pod.containers,
];
const containers = pods.flatMap(containersOf);
const commands = all.flatMap((manifest) => manifest.commands);
const made = madeBy(commands);
const keysOf = (name: string): string[] =>
  Object.keys(made.find((one) => one.name === name)?.literals ?? {});
const cluster = rankflow.of('RayCluster')[0];
const settings = rankflow.of('ConfigMap')[0];
if (cluster === undefined || settings === undefined) throw new Error('no RayCluster or settings');
const [head, ...workers] = [cluster.spec.headGroupSpec, ...cluster.spec.workerGroupSpecs].map(
  ({ template }) => template.spec,
);
/** What KubeRay gives its command and probes to: the first container of each of its pods. */
const ofRay = new Set([head, ...workers].map((pod) => pod?.containers[0]?.name));
const container = (name: string): PodContainer => {
  const found = containers.find((one) => one.name === name);
  if (found === undefined) throw new Error(`there is no container ${name}`);
  return found;
};

describe('the Kubernetes manifests', () => {
  it('are valid YAML of all objects of an installation, in one namespace', () => {
    expect([...all, alone].flatMap(({ problems }) => problems)).toEqual([]);
    expect(all.map(({ names }) => names)).toEqual([
      [
        ...['Service temporal-postgresql', 'StatefulSet temporal-postgresql'],
        ...['Service temporal-frontend', 'Deployment temporal', 'Job temporal-namespace'],
        ...['Service temporal-ui', 'Deployment temporal-ui'],
      ],
      ['ConfigMap rankflow', 'RayCluster rankflow', 'Deployment rankflow-control'],
      ['PersistentVolumeClaim rankflow-data', 'Service rankflow-api', 'Deployment rankflow-api'],
    ]);
    expect(new Set(all.flatMap(({ namespaces }) => namespaces))).toEqual(new Set(['rankflow']));
    expect(alone.names).toEqual(rankflow.names);
  });

  it('run the pinned Ray, one image of this version, and what docker-compose.yml has of others', () => {
    const pinned = /^ray\[default\]==(?<version>\S+)$/mu.exec(
      inPackage('python-activities/requirements.in'),
    );
    expect(cluster.spec.rayVersion).toBe(pinned?.groups?.['version']);
    const { version } = JSON.parse(inPackage('package.json')) as { version: string };
    const images = new Set(containers.map(({ image }) => image));
    const { services: composed } = readCompose();
    expect([...images].toSorted()).toEqual(
      [
        `registry.example.com/rankflow:${version}`,
        ...['postgresql', 'temporal', 'temporal-schema', 'temporal-ui'].map(
          (name) => composed[name]?.image ?? '',
        ),
      ].toSorted(),
    );
  });

  it('configure Temporal as docker-compose.yml does', () => {
    const { services: composed } = readCompose();
    const pairs = {
      postgresql: 'postgresql',
      schema: 'temporal-schema',
      temporal: 'temporal',
      namespace: 'temporal-namespace',
      'temporal-ui': 'temporal-ui',
    };
    const here: Readonly<Record<string, string>> = {
      POSTGRES_SEEDS: 'temporal-postgresql',
      TEMPORAL_ADDRESS: 'temporal-frontend:7233',
      RETENTION: '720h',
      POSTGRES_PASSWORD_FILE: '/run/secrets/postgresql/password',
    };
    for (const [name, service] of Object.entries(pairs)) {
      const { environment = {} } = composed[service] ?? {};
      const wanted = Object.entries(environment).map(([key, value]) => [key, here[key] ?? value]);
      const env = Object.fromEntries(
        (container(name).env ?? []).map((one) => [one.name, one.value]),
      );
      expect(env, name).toMatchObject(Object.fromEntries(wanted));
    }
    const file = made.find(({ kind }) => kind === 'configmap')?.folder ?? '';
    const files = readdirSync(path.join(paths.packageRoot, file));
    for (const named of ['schema', 'namespace', 'temporal']) {
      const told = JSON.stringify(container(named));
      const used = /\/etc\/rankflow\/(?<file>[\w.]+)/u.exec(told)?.groups?.['file'];
      expect(files, named).toContain(used);
    }
  });

  it('mount only volumes that are there, and each of them, with and without the batch API', () => {
    const claims = api.of('PersistentVolumeClaim').map(({ metadata }) => metadata.name);
    for (const { spec } of [...all, alone].flatMap(({ templates }) => templates)) {
      const own = workloads.find((one) => one.spec.template.spec === spec);
      const there = [
        ...(spec.volumes ?? []),
        ...(own?.spec.volumeClaimTemplates ?? []).map(({ metadata }) => metadata),
      ].map(({ name }) => name);
      const mounted = containersOf(spec).flatMap(({ volumeMounts = [] }) =>
        volumeMounts.map(({ name }) => name),
      );
      expect(new Set(mounted)).toEqual(new Set(there));
      for (const { persistentVolumeClaim: claim } of spec.volumes ?? []) {
        if (claim !== undefined) expect(claims).toContain(claim.claimName);
      }
    }
    const withData = (manifest: Manifest): string[] =>
      manifest.templates.flatMap(({ spec }) =>
        spec.containers.flatMap(({ name, volumeMounts = [] }) =>
          volumeMounts.some(({ mountPath }) => mountPath === '/data') ? [name] : [],
        ),
      );
    expect(withData(alone)).toEqual([]);
    expect(withData(rankflow)).toEqual([
      ...['ray-head', 'python-worker', 'ray-worker', 'control-worker'],
    ]);
  });

  it('refer only to settings that are there, and to secrets that their commands make', () => {
    const named = containers.flatMap(({ envFrom = [] }) =>
      envFrom.map(({ secretRef, configMapRef }) => secretRef?.name ?? configMapRef?.name),
    );
    const inVolumes = pods.flatMap(({ volumes = [] }) =>
      volumes.flatMap(({ secret, configMap }) => secret?.secretName ?? configMap?.name ?? []),
    );
    const known = new Set([settings.metadata.name, ...made.map(({ name }) => name)]);
    for (const name of [...named, ...inVolumes, cluster.spec.authOptions.secretName]) {
      expect([...known]).toContain(name);
    }
    for (const { valueFrom } of containers.flatMap(({ env = [] }) => env)) {
      if (valueFrom?.secretKeyRef === undefined) continue;
      expect(keysOf(valueFrom.secretKeyRef.name)).toContain(valueFrom.secretKeyRef.key);
    }
    expect(keysOf(cluster.spec.authOptions.secretName)).toEqual(['auth_token']);
    expect(keysOf('rankflow-store')).toEqual(['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY']);
    expect(keysOf('temporal-postgresql')).toEqual(['password']);
    // No object has a secret in it, and those of the commands have no default.
    for (const { kind, literals } of made) {
      for (const value of Object.values(literals)) {
        expect(value).toMatch(/^(?:\.\.\.|"\$\(openssl rand -hex 32\)")$/u);
      }
      expect(kind === 'configmap' ? literals : {}).toEqual({});
    }
    const objects = all.map(({ text }) => text.slice(text.indexOf('\napiVersion'))).join('\n');
    expect(objects).not.toMatch(/SECRET_ACCESS_KEY|API_KEY|kind: Secret/u);
  });

  it('have services that lead to a port of a pod, and addresses that lead to a service', () => {
    for (const { metadata, spec } of services) {
      const matching = workloads.filter(({ spec: { template } }) =>
        Object.entries(spec.selector).every(
          ([key, value]) => template.metadata?.labels?.[key] === value,
        ),
      );
      expect(matching, metadata.name).toHaveLength(1);
      const ports = matching.flatMap((one) =>
        one.spec.template.spec.containers.flatMap((each) => each.ports ?? []),
      );
      for (const { targetPort, port } of spec.ports) {
        expect(ports, metadata.name).toContainEqual({ name: targetPort, containerPort: port });
      }
    }
    for (const { spec, metadata } of workloads) {
      if (spec.selector === undefined) continue;
      expect(spec.template.metadata?.labels, metadata.name).toEqual(spec.selector.matchLabels);
    }
    const addresses = services.flatMap(({ metadata, spec }) =>
      spec.ports.map(({ port }) => `${metadata.name}:${port}`),
    );
    expect(addresses).toContain(settings.data['TEMPORAL_ADDRESS']);
    const told = containers.flatMap(({ env = [] }) => env);
    for (const { name, value } of told) {
      if (name === 'TEMPORAL_ADDRESS') expect(addresses).toContain(value);
      if (name === 'POSTGRES_SEEDS') expect(addresses).toContain(`${value}:5432`);
    }
    for (const command of commands) {
      const forward = /port-forward service\/(?<name>\S+) \d+:(?<port>\d+)/u.exec(command)?.groups;
      if (forward !== undefined) {
        expect(addresses).toContain(`${forward['name']}:${forward['port']}`);
      }
      const target = /exec deploy\/(?<name>\S+)/u.exec(command)?.groups?.['name'];
      if (target !== undefined) {
        expect(workloads.map(({ metadata }) => metadata.name)).toContain(target);
      }
    }
  });

  it('look after the health of everything that stays, and bound what it takes', () => {
    for (const { resources, name } of containers) {
      for (const kind of ['requests', 'limits'] as const) {
        expect(Object.keys(resources?.[kind] ?? {}), name).toEqual(['cpu', 'memory']);
      }
    }
    const stay = pods.filter(({ restartPolicy }) => restartPolicy === undefined);
    for (const one of stay.flatMap((pod) => pod.containers)) {
      const probes = [one.startupProbe, one.readinessProbe, one.livenessProbe];
      // KubeRay has its own for Ray's containers.
      expect(
        probes.map((probe) => probe !== undefined),
        one.name,
      ).toEqual(probes.map(() => !ofRay.has(one.name)));
      for (const probe of probes) {
        const port = probe?.httpGet?.port ?? probe?.tcpSocket?.port;
        if (port !== undefined) expect(one.ports?.map(({ name }) => name)).toContain(port);
      }
    }
  });

  it('run nothing as root, and nothing that could become it: the restricted security standard', () => {
    for (const pod of pods) {
      expect(pod.securityContext).toMatchObject({
        runAsNonRoot: true,
        seccompProfile: { type: 'RuntimeDefault' },
      });
      expect(pod.securityContext?.runAsUser).toBeGreaterThan(0);
      for (const { securityContext, name } of containersOf(pod)) {
        expect(securityContext, name).toEqual({
          allowPrivilegeEscalation: false,
          capabilities: { drop: ['ALL'] },
        });
      }
    }
  });

  it('hide from pods what services are there: their variables mean something else to programs', () => {
    for (const pod of pods) expect(pod.enableServiceLinks).toBe(false);
  });

  it('let the driver of Ray see the node of its pod and its sockets', () => {
    expect(head?.shareProcessNamespace).toBe(true);
    const mounts = head?.containers.map(({ volumeMounts = [] }) =>
      volumeMounts.find(({ mountPath }) => mountPath === '/tmp/ray'),
    );
    expect(mounts?.map((mount) => mount?.name)).toEqual(['ray', 'ray']);
  });

  it('tell every process of Rankflow of Temporal, and each driver where the token is', () => {
    for (const { image, envFrom } of containers) {
      if (!image.includes('/rankflow:')) continue;
      expect(envFrom).toEqual([
        { configMapRef: { name: settings.metadata.name } },
        { secretRef: { name: 'rankflow-store' } },
        { secretRef: { name: 'rankflow-temporal', optional: true } },
      ]);
    }
    const run = commands.find((command) => command.includes('main.js run')) ?? '';
    for (const name of ['python-worker', 'control-worker', 'api']) {
      const { env, volumeMounts } = container(name);
      const file = env?.find((one) => one.name === 'RAY_AUTH_TOKEN_PATH')?.value ?? '';
      expect(path.posix.basename(file)).toBe('auth_token');
      expect(volumeMounts?.map(({ mountPath }) => mountPath)).toContain(path.posix.dirname(file));
      expect(run).toContain(`--ray-token-file ${file}`);
    }
  });

  it('give what ends more time than it takes', () => {
    for (const pod of [head, ...workers]) {
      const drain = pod?.containers[0]?.env?.find(({ name }) =>
        name.includes('DRAIN_TIMEOUT'),
      )?.value;
      expect(Number(drain)).toBeLessThan(pod?.terminationGracePeriodSeconds ?? 0);
    }
    // 20 s of the Python worker; 30 s of uploads.
    expect(head?.terminationGracePeriodSeconds).toBeGreaterThan(25);
    const serving = pods.find((pod) => pod.containers[0]?.name === 'api');
    expect(serving?.terminationGracePeriodSeconds).toBeGreaterThan(30);
  });

  it('are used with flags that `rankflow` has', () => {
    const helpOf = (command: string): string =>
      execFileSync(process.execPath, ['dist/cli/main.js', ...command.split(' '), '--help'], {
        cwd: paths.packageRoot,
        encoding: 'utf8',
      });
    const serving = [...(container('api').command ?? []), ...(container('api').args ?? [])];
    const told = [...commands, serving.join(' ')].flatMap((command) => {
      const rest = /dist\/cli\/main\.js (?<rest>.*)/u.exec(command)?.groups?.['rest'];
      return rest === undefined ? [] : [rest];
    });
    expect(told).toHaveLength(3);
    for (const rest of told) {
      const help = helpOf(/^(?:run|serve keys create|serve)/u.exec(rest)?.[0] ?? '');
      const flags = [...rest.matchAll(/ (--[a-z-]+)/gu)].map((match) => match[1]);
      expect(flags.length).toBeGreaterThan(0);
      for (const flag of flags) expect(help, rest).toContain(flag);
    }
    // KubeRay calls the service of a head so.
    for (const rest of told.filter((one) => one.includes('--address'))) {
      expect(rest).toMatch(new RegExp(`--address[ =]${cluster.metadata.name}-head-svc:6379`, 'u'));
    }
  });
});
