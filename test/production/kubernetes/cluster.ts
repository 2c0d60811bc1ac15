import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, writeFileSync } from 'node:fs';
import { get } from 'node:http';
import { connect } from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { Connection } from '@temporalio/client';

import { type Host, Network } from '../../../chaos/network/network.js';
import type {
  EnvVar,
  Manifest,
  PodContainer,
  PodSpec,
  Probe,
  Service,
  Volume,
} from '../../support/manifests.js';
import { Box } from '../containers/box.js';
import type { Image } from '../containers/images.js';
import type { RayObjects } from './tools.js';

/** A machine that is busy with something else takes minutes for a Ray node. */
const STARTS_MS = 600_000;
const PROBE_MS = 20_000;
/** Of a pod that does not say. */
const GRACE_SECONDS = 30;
const SHM_BYTES = 64 * 2 ** 20;
const UNITS: Readonly<Record<string, number>> = { Mi: 2 ** 20, Gi: 2 ** 30 };

/** Values by the name of a secret or ConfigMap, and by their keys. */
export type Values = ReadonlyMap<string, Readonly<Record<string, string>>>;

export interface ClusterOptions {
  /** Where volumes, roots and logs are. */
  readonly folder: string;
  readonly manifests: readonly Manifest[];
  /** What KubeRay makes of the `RayCluster` in them. */
  readonly ray: RayObjects;
  /** By the name before the tag; pods of others are left out. */
  readonly images: Readonly<Record<string, Image>>;
  readonly secrets: Values;
  /** Of commands; those in the manifests are added. */
  readonly configMaps: Values;
  /** Arguments that are added to a container, by its name. */
  readonly more?: Readonly<Record<string, readonly string[]>>;
  /** Pods that can be replaced. */
  readonly spares: number;
}

interface PodSource {
  /** Of what made it. */
  readonly owner: string;
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly spec: PodSpec;
  readonly claims: readonly string[];
}

interface Pod extends PodSource {
  readonly name: string;
  readonly host: Host;
  /** Holds the process ids that its containers share. */
  readonly pause?: Box;
  readonly first: readonly Box[];
  readonly boxes: ReadonlyMap<string, Box>;
}

/**
 * Pods as processes of this machine: each in a network namespace of its own, its containers in other namespaces, with the
 * commands, environments, secrets, volumes, users, names and probes of the manifests. Whoever schedules, keeps objects
 * and balances services in Kubernetes is not there: a service is a name for its first pod.
 */
export class Cluster {
  readonly #pods = new Map<string, Pod>();
  readonly #sources: readonly PodSource[];
  readonly #configMaps: Values;

  private constructor(
    private readonly options: ClusterOptions,
    private readonly network: Network,
    sources: readonly PodSource[],
  ) {
    this.#sources = sources;
    const own = options.manifests.flatMap((one) => one.of('ConfigMap'));
    this.#configMaps = new Map([
      ...own.map(({ metadata, data }) => [metadata.name, data] as const),
      ...options.configMaps,
    ]);
  }

  /** @throws NotPossible where namespaces may not be made */
  static create(options: ClusterOptions): Cluster {
    const sources = sourcesOf(options).filter(({ spec }) =>
      spec.containers.every(({ image }) => imageOf(options, image) !== undefined),
    );
    const count = sources.length + options.spares;
    const network = Network.create(Array.from({ length: count }, (_, index) => `p${index}`));
    return new Cluster(options, network, sources);
  }

  /** The address of this machine on the network. */
  get gateway(): string {
    return this.network.hosts[0]?.address.replace(/\.\d+$/u, '.1') ?? '';
  }

  /** Starts all pods at once, as `kubectl apply` does, and waits until all are ready. */
  async up(more: Readonly<Record<string, string>>): Promise<void> {
    this.#settings = more;
    this.#writeHosts();
    const pods = this.#sources.map((source) => this.#create(source));
    await Promise.all(pods.map(async (pod) => this.#start(pod)));
    await Promise.all(pods.map(async (pod) => this.#ready(pod)));
  }

  /** What every container is told that takes the settings of Rankflow. */
  #settings: Readonly<Record<string, string>> = {};

  get names(): string[] {
    return [...this.#pods.keys()];
  }

  /** The address of a service. */
  address(service: string): string {
    const found = this.#services.find(({ metadata }) => metadata.name === service);
    if (found === undefined) throw new Error(`there is no service ${service}`);
    const index = this.#sources.findIndex(({ labels }) => isOf(labels, found));
    return this.network.hosts[index]?.address ?? '';
  }

  get #services(): Service[] {
    const { manifests, ray } = this.options;
    return [...manifests.flatMap((one) => one.of('Service')), ray.service];
  }

  get #hostsFile(): string {
    return path.join(this.options.folder, 'hosts');
  }

  #writeHosts(): void {
    const lines = this.#services.flatMap((service) => {
      const { name, namespace } = service.metadata;
      if (!this.#sources.some(({ labels }) => isOf(labels, service))) return [];
      const names = ['', `.${namespace}`, `.${namespace}.svc`, `.${namespace}.svc.cluster.local`];
      return `${this.address(name)} ${names.map((end) => `${name}${end}`).join(' ')}`;
    });
    writeFileSync(this.#hostsFile, `127.0.0.1 localhost\n${lines.join('\n')}\n`);
  }

  #create(source: PodSource): Pod {
    const host = this.network.hosts[this.#pods.size];
    if (host === undefined) throw new Error('a pod has no host');
    // A pod has a way out; this one ends at the bridge.
    const route = ['-n', host.namespace, 'route', 'add', 'default', 'via', this.gateway];
    execFileSync('ip', route);
    const number = [...this.#pods.values()].filter(({ owner }) => owner === source.owner).length;
    const name = `${source.owner}-${number}`;
    const { spec } = source;
    const volumes = new Map(
      [...(spec.volumes ?? []), ...source.claims.map(claimed)].map((volume) => [
        volume.name,
        this.#volume(name, volume, spec.securityContext?.fsGroup ?? 0),
      ]),
    );
    const shm = new Map((spec.volumes ?? []).map((volume) => [volume.name, volume]));
    const pause = spec.shareProcessNamespace
      ? this.#box({ name, host, spec }, 'pause', {
          command: ['/bin/bash', '-c', 'sleep infinity & wait'],
          image: { user: [65_535, 65_535], folder: '/', environment: {}, mounts: [] },
        })
      : undefined;
    const boxOf = (container: PodContainer): Box => {
      const image = imageOf(this.options, container.image);
      if (image === undefined) throw new Error(`no image ${container.image}`);
      const command = [
        ...(container.command ?? image.entrypoint ?? []),
        ...(container.args ?? (container.command ? [] : (image.command ?? []))),
        ...(this.options.more?.[container.name] ?? []),
      ];
      const mounts = (container.volumeMounts ?? []).filter(
        ({ mountPath }) => mountPath !== '/dev/shm',
      );
      const memory = container.volumeMounts?.find(({ mountPath }) => mountPath === '/dev/shm');
      return this.#box({ name, host, spec }, container.name, {
        ...{ command, image, ...(pause !== undefined && { processesOf: pause }) },
        environment: this.#environment(source, name, container),
        mounts: mounts.map((one) => [volumes.get(one.name) ?? '', one.mountPath] as const),
        shmBytes: bytesOf(shm.get(memory?.name ?? '')?.emptyDir?.sizeLimit) ?? SHM_BYTES,
      });
    };
    const pod: Pod = {
      ...{ ...source, name, host },
      ...(pause !== undefined && { pause }),
      first: (spec.initContainers ?? []).map(boxOf),
      boxes: new Map(spec.containers.map((one) => [one.name, boxOf(one)])),
    };
    this.#pods.set(name, pod);
    return pod;
  }

  #box(
    { name, host, spec }: { name: string; host: Host; spec: PodSpec },
    container: string,
    {
      image,
      ...more
    }: {
      image: Image;
      command: readonly string[];
      environment?: Readonly<Record<string, string>>;
      mounts?: readonly (readonly [string, string])[];
      shmBytes?: number;
      processesOf?: Box;
    },
  ): Box {
    const { folder } = this.options;
    const { runAsUser = image.user[0], runAsGroup = image.user[1] } = spec.securityContext ?? {};
    // As `restartPolicy` has it; one that goes first is to end well.
    const once =
      spec.restartPolicy === 'OnFailure' ||
      (spec.initContainers ?? []).some((one) => one.name === container);
    return new Box({
      name: `${name}/${container}`,
      namespace: host.namespace,
      root: path.join(folder, 'roots', container, name),
      hosts: this.#hostsFile,
      user: [runAsUser, runAsGroup],
      folder: image.folder,
      log: path.join(folder, `${name}.${container}.log`),
      init: false,
      shmBytes: more.shmBytes ?? SHM_BYTES,
      command: more.command,
      mounts: [...image.mounts, ...(more.mounts ?? []), ...(image.mountsLast ?? [])],
      environment: { HOME: '/home/rankflow', ...image.environment, ...more.environment },
      again: (exitCode) => !once || exitCode !== 0,
      ...(more.processesOf !== undefined && { processesOf: more.processesOf }),
    });
  }

  #environment(source: PodSource, name: string, { env = [], envFrom = [] }: PodContainer) {
    const { secrets } = this.options;
    const from = envFrom.flatMap(({ configMapRef, secretRef }) => {
      const values =
        configMapRef === undefined
          ? secrets.get(secretRef?.name ?? '')
          : { ...this.#configMaps.get(configMapRef.name), ...this.#settings };
      if (values === undefined && secretRef?.optional !== true) {
        throw new Error(`${name} has no ${configMapRef?.name ?? secretRef?.name}`);
      }
      return Object.entries(values ?? {});
    });
    const valueOf = ({ value = '', valueFrom }: EnvVar): string => {
      if (valueFrom?.secretKeyRef !== undefined) {
        const { name: secret, key } = valueFrom.secretKeyRef;
        const found = secrets.get(secret)?.[key];
        if (found === undefined) throw new Error(`${name} has no ${key} of ${secret}`);
        return found;
      }
      const field = valueFrom?.fieldRef?.fieldPath;
      if (field === undefined) return value;
      if (field === 'metadata.name') return name;
      if (field === 'metadata.namespace') return source.namespace;
      const label = /^metadata\.labels\['(?<label>.+)'\]$/u.exec(field)?.groups?.['label'];
      if (label === undefined) throw new Error(`${name} asks for ${field}`);
      return source.labels[label] ?? '';
    };
    return Object.fromEntries([...from, ...env.map((one) => [one.name, valueOf(one)] as const)]);
  }

  /** A folder that is a volume, with the group and the modes that Kubernetes gives it. */
  #volume(pod: string, volume: Volume, group: number): string {
    const { persistentVolumeClaim: claim, secret, configMap } = volume;
    const owner = claim === undefined ? path.join(pod, volume.name) : claim.claimName;
    const folder = path.join(this.options.folder, 'volumes', owner);
    mkdirSync(folder, { recursive: true });
    const name = secret?.secretName ?? configMap?.name;
    if (name === undefined) {
      chownSync(folder, 0, group);
      chmodSync(folder, claim === undefined ? 0o2777 : 0o2775);
      return folder;
    }
    const values = (secret === undefined ? this.#configMaps : this.options.secrets).get(name);
    if (values === undefined) throw new Error(`${pod} has no ${name}`);
    for (const [key, value] of Object.entries(values)) {
      const file = path.join(folder, key);
      writeFileSync(file, value);
      chownSync(file, 0, group);
      chmodSync(file, secret?.defaultMode ?? 0o644);
    }
    return folder;
  }

  async #start(pod: Pod): Promise<void> {
    if (pod.pause !== undefined) {
      const { pause } = pod;
      pause.start();
      await pause.until('there', PROBE_MS, async () => {
        const { failed, stderr } = await pause.exec(['true'], PROBE_MS);
        return failed ? stderr : undefined;
      });
    }
    for (const box of pod.first) {
      box.start();
      await box.completed(STARTS_MS);
    }
    for (const box of pod.boxes.values()) box.start();
  }

  /** Waits until all of a pod's probes of this kind are well, or it has ended well when it is to end. */
  async #ready(pod: Pod): Promise<void> {
    for (const [name, box] of pod.boxes) {
      if (pod.spec.restartPolicy === 'OnFailure') {
        await box.completed(STARTS_MS);
        continue;
      }
      for (const kind of ['startupProbe', 'readinessProbe'] as const) {
        await box.until('ready', STARTS_MS, async () => this.#probed(pod, name, kind));
      }
    }
  }

  /** Asks all probes of all pods once. Returns how many there were, and what was wrong. */
  async probeAll(): Promise<{ asked: number; wrong: string[] }> {
    const wrong: string[] = [];
    let asked = 0;
    for (const pod of this.#pods.values()) {
      if (pod.spec.restartPolicy === 'OnFailure') continue;
      for (const [name, box] of pod.boxes) {
        if (box.hasEnded) continue;
        for (const kind of ['startupProbe', 'readinessProbe', 'livenessProbe'] as const) {
          if (pod.spec.containers.find((one) => one.name === name)?.[kind] === undefined) continue;
          asked += 1;
          const problem = await this.#probed(pod, name, kind);
          if (problem !== undefined) wrong.push(`${box.name} ${kind}: ${problem}`);
        }
      }
    }
    return { asked, wrong };
  }

  /** What is wrong, as the kubelet asks it: from the machine, at the pod's address. */
  async #probed(
    pod: Pod,
    name: string,
    kind: 'startupProbe' | 'readinessProbe' | 'livenessProbe',
  ): Promise<string | undefined> {
    const container = pod.spec.containers.find((one) => one.name === name);
    const probe: Probe | undefined = container?.[kind];
    if (container === undefined || probe === undefined) return undefined;
    const portOf = (port: string | number): number =>
      typeof port === 'number'
        ? port
        : (container.ports?.find((one) => one.name === port)?.containerPort ?? 0);
    const { address } = pod.host;
    try {
      if (probe.exec !== undefined) {
        const { failed, stdout, stderr } = await (pod.boxes.get(name) as Box).exec(
          probe.exec.command,
          PROBE_MS,
        );
        return failed ? `${stdout}${stderr}` : undefined;
      }
      if (probe.httpGet !== undefined) {
        const url = `http://${address}:${portOf(probe.httpGet.port)}${probe.httpGet.path}`;
        const status = await statusOf(url);
        return status < 400 ? undefined : `${url}: ${status}`;
      }
      if (probe.grpc !== undefined) {
        return await servingProblem(`${address}:${probe.grpc.port}`, probe.grpc.service ?? '');
      }
      await connected(address, portOf(probe.tcpSocket?.port ?? 0));
      return undefined;
    } catch (error) {
      return String(error);
    }
  }

  /** A command as `kubectl exec deploy/NAME`: in the first container of its first pod. Never throws. */
  exec(deployment: string, command: readonly string[], container?: string) {
    const pod = this.#get(`${deployment}-0`);
    const box = pod.boxes.get(container ?? pod.spec.containers[0]?.name ?? '');
    if (box === undefined) throw new Error(`${deployment} has no container ${container}`);
    return box.exec(command);
  }

  /**
   * Takes a pod away as Kubernetes does: SIGTERM to each container, its grace, and then the rest. Returns the seconds
   * that it took, and the exit codes; undefined of what did not end by itself.
   */
  async delete(name: string): Promise<{ seconds: number; codes: (number | null | undefined)[] }> {
    const { boxes, pause, spec } = this.#get(name);
    const grace = (spec.terminationGracePeriodSeconds ?? GRACE_SECONDS) * 1000;
    const began = Date.now();
    const ends = [...boxes.values()].map(async (box) => {
      box.stop('SIGTERM');
      try {
        return await box.ended(grace);
      } catch {
        box.stop('SIGKILL');
        return undefined;
      }
    });
    const codes = await Promise.all(ends);
    pause?.stop('SIGKILL');
    return { seconds: (Date.now() - began) / 1000, codes };
  }

  /** Another pod of what made one, on another address: as whoever made it does when one is gone. */
  async replace(name: string): Promise<string> {
    const pod = this.#create(this.#get(name));
    await this.#start(pod);
    await this.#ready(pod);
    return pod.name;
  }

  /** How often containers were started again by themselves, by their names. */
  get restarts(): Record<string, number> {
    const boxes = [...this.#pods.values()].flatMap((pod) => [...pod.boxes.values()]);
    return Object.fromEntries(boxes.map((box) => [box.name, box.restarts]));
  }

  log(name: string): string {
    const { first, boxes } = this.#get(name);
    return [...first, ...boxes.values()].map((box) => `${box.name}:\n${box.said}`).join('\n');
  }

  async down(): Promise<void> {
    try {
      const pods = [...this.#pods.values()];
      await Promise.all(
        pods.map(async ({ first, boxes, pause }) => {
          for (const box of first) box.stop('SIGKILL');
          await Promise.all([...boxes.values()].map(async (box) => box.down(10_000)));
          pause?.stop('SIGKILL');
        }),
      );
      await sleep(500);
    } finally {
      this.network.remove();
    }
  }

  #get(name: string): Pod {
    const found = this.#pods.get(name);
    if (found === undefined) throw new Error(`there is no pod ${name}: ${this.names.join(', ')}`);
    return found;
  }
}

/** All pods of workloads, and those of KubeRay. */
function sourcesOf({ manifests, ray }: ClusterOptions): PodSource[] {
  const own = manifests.flatMap(({ workloads }) =>
    workloads.flatMap(({ metadata, spec }) => {
      const source = {
        owner: metadata.name,
        namespace: metadata.namespace,
        labels: spec.template.metadata?.labels ?? {},
        spec: spec.template.spec,
        claims: (spec.volumeClaimTemplates ?? []).map((claim) => claim.metadata.name),
      };
      return Array.from({ length: spec.replicas ?? 1 }, () => source);
    }),
  );
  const ofRay = [ray.head, ...ray.workers].map(({ metadata, spec }) => ({
    owner: metadata.generateName.replace(/-+$/u, ''),
    namespace: metadata.namespace,
    labels: metadata.labels,
    spec,
    claims: [],
  }));
  return [...own, ...ofRay];
}

const claimed = (name: string): Volume => ({ name, persistentVolumeClaim: { claimName: name } });

const imageOf = ({ images }: ClusterOptions, image: string): Image | undefined =>
  images[image.split(':')[0] ?? ''];

function isOf(labels: Readonly<Record<string, string>>, { spec }: Service): boolean {
  return Object.entries(spec.selector).every(([key, value]) => labels[key] === value);
}

function bytesOf(quantity: string | undefined): number | undefined {
  const found = /^(?<count>\d+)(?<unit>[MG]i)$/u.exec(quantity ?? '')?.groups;
  return found && Number(found['count']) * (UNITS[found['unit'] ?? ''] ?? 1);
}

async function servingProblem(address: string, service: string): Promise<string | undefined> {
  const connection = await Connection.connect({ address, connectTimeout: PROBE_MS });
  try {
    const { status } = await connection.healthService.check({ service });
    // `SERVING` of gRPC's health protocol.
    const serving: number = status;
    return serving === 1 ? undefined : `${service}: ${status}`;
  } finally {
    await connection.close();
  }
}

/** As the kubelet asks: what `fetch` adds as browsers do is refused by Ray. */
async function statusOf(url: string): Promise<number> {
  const headers = { 'user-agent': 'kube-probe/1.30', accept: '*/*' };
  return new Promise((resolve, reject) => {
    const request = get(url, { headers, timeout: PROBE_MS, agent: false }, (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    request.once('timeout', () => request.destroy(new Error('no answer')));
    request.once('error', reject);
  });
}

async function connected(host: string, port: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const socket = connect({ host, port, timeout: PROBE_MS }, () => {
      socket.end();
      resolve();
    });
    socket.once('error', reject);
    socket.once('timeout', () => reject(new Error('no answer')));
  });
}
