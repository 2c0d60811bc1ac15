import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';

import { parseAllDocuments } from 'yaml';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';

import { paths } from '../../../src/setup/paths.js';

/** The fields of Kubernetes and of KubeRay's CRD (`ray.io/v1`) that are used; any other one is a slip. */
const Metadata = z.strictObject({
  name: z.string(),
  namespace: z.literal('rankflow'),
});
const Quantities = z.partialRecord(z.enum(['cpu', 'memory', 'nvidia.com/gpu']), z.string());
const Container = z.strictObject({
  name: z.string(),
  image: z.string(),
  command: z.array(z.string()).optional(),
  ports: z.array(z.strictObject({ name: z.string().max(15), containerPort: z.int() })).optional(),
  env: z.array(z.strictObject({ name: z.string(), value: z.string() })).optional(),
  envFrom: z.array(
    z.union([
      z.strictObject({ configMapRef: z.strictObject({ name: z.string() }) }),
      z.strictObject({
        secretRef: z.strictObject({ name: z.string(), optional: z.boolean().optional() }),
      }),
    ]),
  ),
  resources: z.strictObject({ requests: Quantities, limits: Quantities }),
  volumeMounts: z
    .array(
      z.strictObject({ name: z.string(), mountPath: z.string(), readOnly: z.boolean().optional() }),
    )
    .optional(),
});
const Volume = z.union([
  z.strictObject({
    name: z.string(),
    emptyDir: z.strictObject({
      medium: z.literal('Memory').optional(),
      sizeLimit: z.string().optional(),
    }),
  }),
  z.strictObject({
    name: z.string(),
    secret: z.strictObject({ secretName: z.string(), defaultMode: z.literal(0o440) }),
  }),
]);
const Pod = z.strictObject({
  shareProcessNamespace: z.boolean().optional(),
  terminationGracePeriodSeconds: z.int().optional(),
  securityContext: z.strictObject({ fsGroup: z.int() }).optional(),
  containers: z.array(Container).min(1),
  volumes: z.array(Volume),
});
const Template = z.strictObject({
  metadata: z.strictObject({ labels: z.record(z.string(), z.string()) }).optional(),
  spec: Pod,
});
// KubeRay makes flags of `ray start` of them: it wants strings.
const RayStartParams = z.record(z.string(), z.string());
const RayCluster = z.strictObject({
  apiVersion: z.literal('ray.io/v1'),
  kind: z.literal('RayCluster'),
  metadata: Metadata,
  spec: z.strictObject({
    rayVersion: z.string(),
    authOptions: z.strictObject({ mode: z.enum(['token', 'disabled']), secretName: z.string() }),
    headGroupSpec: z.strictObject({ rayStartParams: RayStartParams, template: Template }),
    workerGroupSpecs: z.array(
      z.strictObject({
        groupName: z.string(),
        replicas: z.int(),
        minReplicas: z.int(),
        maxReplicas: z.int(),
        rayStartParams: RayStartParams,
        template: Template,
      }),
    ),
  }),
});
const ConfigMap = z.strictObject({
  apiVersion: z.literal('v1'),
  kind: z.literal('ConfigMap'),
  metadata: Metadata,
  data: z.record(z.string(), z.string()),
});
const Deployment = z.strictObject({
  apiVersion: z.literal('apps/v1'),
  kind: z.literal('Deployment'),
  metadata: Metadata,
  spec: z.strictObject({
    replicas: z.int(),
    selector: z.strictObject({ matchLabels: z.record(z.string(), z.string()) }),
    template: Template,
  }),
});

const inPackage = (file: string): string =>
  readFileSync(path.join(paths.packageRoot, file), 'utf8');
const text = inPackage('examples/kubernetes/rankflow.yaml');
const documents = parseAllDocuments(text);
const values: unknown[] = documents.map((document) => document.toJS());
const settings = ConfigMap.parse(values[0]);
const cluster = RayCluster.parse(values[1]);
const control = Deployment.parse(values[2]);
const [head, ...workers] = [cluster.spec.headGroupSpec, ...cluster.spec.workerGroupSpecs].map(
  ({ template }) => template.spec,
);
const pods = [head, ...workers, control.spec.template.spec].filter((pod) => pod !== undefined);
const containers = pods.flatMap((pod) => pod.containers);
/** The commands in the comment at its beginning. */
const commands = text
  .slice(0, text.indexOf('apiVersion'))
  .replaceAll(/^# ?/gmu, '')
  .replaceAll(/\\\n\s*/gu, '');

describe('the Kubernetes manifest', () => {
  it('is valid YAML of three objects, with no field that their kinds do not have', () => {
    expect(documents.flatMap(({ errors, warnings }) => [...errors, ...warnings])).toEqual([]);
    expect(values).toHaveLength(3);
  });

  it('runs the pinned Ray, and one image of this version everywhere', () => {
    const pinned = /^ray\[default\]==(?<version>\S+)$/mu.exec(
      inPackage('python-activities/requirements.in'),
    );
    expect(cluster.spec.rayVersion).toBe(pinned?.groups?.['version']);
    const { version } = JSON.parse(inPackage('package.json')) as { version: string };
    const images = new Set(containers.map(({ image }) => image.split('/').at(-1)));
    expect([...images]).toEqual([`rankflow:${version}`]);
    expect(inPackage('docker-compose.yml')).toContain(`image: rankflow:${version}`);
  });

  it('mounts only volumes that are there, and each of them', () => {
    for (const pod of pods) {
      const mounted = pod.containers.flatMap(({ volumeMounts = [] }) =>
        volumeMounts.map(({ name }) => name),
      );
      expect(new Set(mounted)).toEqual(new Set(pod.volumes.map(({ name }) => name)));
    }
  });

  it('refers only to settings that are there and secrets that its commands make', () => {
    const made = new Map(
      [
        ...commands.matchAll(
          /create secret generic (?<name>\S+)(?<literals>(?: +--from-literal=\S+)+)/gu,
        ),
      ].map(({ groups }) => [
        groups?.['name'],
        [...(groups?.['literals'] ?? '').matchAll(/--from-literal=(\w+)/gu)].map(
          (match) => match[1],
        ),
      ]),
    );
    const named = containers.flatMap(({ envFrom }) =>
      envFrom.map((source) =>
        'secretRef' in source ? source.secretRef.name : source.configMapRef.name,
      ),
    );
    const inVolumes = pods.flatMap(({ volumes }) =>
      volumes.flatMap((volume) => ('secret' in volume ? [volume.secret.secretName] : [])),
    );
    const secrets = [...named, ...inVolumes, cluster.spec.authOptions.secretName];
    for (const name of secrets) expect([settings.metadata.name, ...made.keys()]).toContain(name);
    expect(made.get(cluster.spec.authOptions.secretName)).toEqual(['auth_token']);
    expect(made.get('rankflow-store')).toEqual(['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY']);
    // Secrets are in no object of the file.
    expect(JSON.stringify(values)).not.toMatch(/SECRET_ACCESS_KEY|API_KEY/u);
  });

  it('lets the driver of Ray see the node of its pod and its sockets', () => {
    expect(head?.shareProcessNamespace).toBe(true);
    const mounts = head?.containers.map(({ volumeMounts = [] }) =>
      volumeMounts.find(({ mountPath }) => mountPath === '/tmp/ray'),
    );
    expect(mounts?.map((mount) => mount?.name)).toEqual(['ray', 'ray']);
  });

  it('tells every process of Rankflow of Temporal, and each driver where the token is', () => {
    expect(settings.data['TEMPORAL_ADDRESS']).toMatch(/:7233$/u);
    for (const { envFrom } of containers) {
      expect(envFrom).toContainEqual({ configMapRef: { name: settings.metadata.name } });
    }
    for (const name of ['python-worker', 'control-worker']) {
      const { env, volumeMounts } = containers.find((one) => one.name === name) ?? {};
      const file = env?.find((one) => one.name === 'RAY_AUTH_TOKEN_PATH')?.value ?? '';
      expect(path.posix.basename(file)).toBe('auth_token');
      expect(volumeMounts?.map(({ mountPath }) => mountPath)).toContain(path.posix.dirname(file));
      expect(commands).toContain(`--ray-token-file ${file}`);
    }
  });

  it('gives engines less time to drain than their pod has', () => {
    for (const pod of workers) {
      const drain = pod.containers[0]?.env?.find(({ name }) =>
        name.includes('DRAIN_TIMEOUT'),
      )?.value;
      expect(Number(drain)).toBeLessThan(pod.terminationGracePeriodSeconds ?? 0);
    }
  });

  it('is used with flags that `rankflow run` has', () => {
    const help = execFileSync(process.execPath, ['dist/cli/main.js', 'run', '--help'], {
      cwd: paths.packageRoot,
      encoding: 'utf8',
    });
    const run = /main\.js run (?<rest>.*)/u.exec(commands)?.groups?.['rest'] ?? '';
    const flags = [...run.matchAll(/ (--[a-z-]+)/gu)].map((match) => match[1]);
    expect(flags.length).toBeGreaterThan(5);
    for (const flag of flags) expect(help).toContain(flag);
    // KubeRay calls the service of a head so.
    expect(run).toContain(`--address ${cluster.metadata.name}-head-svc:6379`);
  });
});
