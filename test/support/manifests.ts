import { readFileSync } from 'node:fs';
import path from 'node:path';

import { parseAllDocuments } from 'yaml';

import { paths } from '../../src/setup/paths.js';

/** The parts of Kubernetes' kinds that the manifests use; `test/production/manifests.test.ts` holds them against all. */
export interface EnvVar {
  readonly name: string;
  readonly value?: string;
  readonly valueFrom?: {
    readonly secretKeyRef?: { readonly name: string; readonly key: string };
    readonly fieldRef?: { readonly fieldPath: string };
  };
}

export interface EnvFrom {
  readonly configMapRef?: { readonly name: string };
  readonly secretRef?: { readonly name: string; readonly optional?: boolean };
}

export interface Probe {
  readonly exec?: { readonly command: readonly string[] };
  readonly httpGet?: { readonly path: string; readonly port: string | number };
  readonly tcpSocket?: { readonly port: string | number };
  readonly grpc?: { readonly port: number; readonly service?: string };
}

export interface PodContainer {
  readonly name: string;
  readonly image: string;
  readonly command?: readonly string[];
  readonly args?: readonly string[];
  readonly securityContext?: {
    readonly allowPrivilegeEscalation?: boolean;
    readonly capabilities?: { readonly drop?: readonly string[] };
  };
  readonly ports?: readonly { readonly name: string; readonly containerPort: number }[];
  readonly env?: readonly EnvVar[];
  readonly envFrom?: readonly EnvFrom[];
  readonly startupProbe?: Probe;
  readonly readinessProbe?: Probe;
  readonly livenessProbe?: Probe;
  readonly resources?: {
    readonly requests?: Readonly<Record<string, string>>;
    readonly limits?: Readonly<Record<string, string>>;
  };
  readonly volumeMounts?: readonly {
    readonly name: string;
    readonly mountPath: string;
    readonly readOnly?: boolean;
  }[];
}

export interface Volume {
  readonly name: string;
  readonly emptyDir?: { readonly medium?: string; readonly sizeLimit?: string };
  readonly secret?: { readonly secretName: string; readonly defaultMode?: number };
  readonly configMap?: { readonly name: string };
  readonly persistentVolumeClaim?: { readonly claimName: string };
}

export interface PodSpec {
  readonly automountServiceAccountToken?: boolean;
  readonly enableServiceLinks?: boolean;
  readonly shareProcessNamespace?: boolean;
  readonly restartPolicy?: string;
  readonly terminationGracePeriodSeconds?: number;
  readonly securityContext?: {
    readonly runAsNonRoot?: boolean;
    readonly runAsUser?: number;
    readonly runAsGroup?: number;
    readonly fsGroup?: number;
    readonly seccompProfile?: { readonly type: string };
  };
  readonly initContainers?: readonly PodContainer[];
  readonly containers: readonly PodContainer[];
  readonly volumes?: readonly Volume[];
}

export interface Template {
  readonly metadata?: { readonly labels?: Readonly<Record<string, string>> };
  readonly spec: PodSpec;
}

interface Named {
  readonly metadata: { readonly name: string; readonly namespace: string };
}

export interface ConfigMap extends Named {
  readonly data: Readonly<Record<string, string>>;
}

export interface Service extends Named {
  readonly spec: {
    readonly clusterIP?: string;
    readonly selector: Readonly<Record<string, string>>;
    readonly ports: readonly {
      readonly name: string;
      readonly port: number;
      readonly targetPort: string;
    }[];
  };
}

/** A `Deployment`, a `StatefulSet` or a `Job`. */
export interface Workload extends Named {
  readonly kind: string;
  readonly spec: {
    readonly replicas?: number;
    readonly selector?: { readonly matchLabels: Readonly<Record<string, string>> };
    readonly template: Template;
    readonly volumeClaimTemplates?: readonly { readonly metadata: { readonly name: string } }[];
  };
}

interface RayGroup {
  readonly rayStartParams: Readonly<Record<string, string>>;
  readonly template: Template;
}

export interface RayCluster extends Named {
  readonly spec: {
    readonly rayVersion: string;
    readonly authOptions: { readonly mode: string; readonly secretName: string };
    readonly headGroupSpec: RayGroup;
    readonly workerGroupSpecs: readonly (RayGroup & { readonly replicas: number })[];
  };
}

/** In the order in which they are applied. */
export const MANIFESTS = ['temporal', 'rankflow', 'api'].map(
  (name) => `examples/kubernetes/${name}.yaml`,
);

const contentOf = (file: string): string =>
  readFileSync(path.join(paths.packageRoot, file), 'utf8');

/** What `sed 's/# api: //'` makes of it: with the volume that the batch API needs. */
export const withApi = (text: string): string => text.replaceAll('# api: ', '');

/** A manifest, and the objects of each kind in it. */
export class Manifest {
  readonly #objects: readonly (Named & { readonly kind: string })[];
  /** What the parser of YAML has against it. */
  readonly problems: readonly string[];

  constructor(readonly text: string) {
    const documents = parseAllDocuments(text);
    if (!Array.isArray(documents)) throw new Error('an empty manifest');
    this.problems = documents.flatMap(({ errors, warnings }) =>
      [...errors, ...warnings].map(({ message }) => message),
    );
    this.#objects = documents.map((one) => one.toJS() as Named & { readonly kind: string });
  }

  static read(file: string, api = true): Manifest {
    const text = contentOf(file);
    return new Manifest(api ? withApi(text) : text);
  }

  get names(): string[] {
    return this.#objects.map(({ kind, metadata }) => `${kind} ${metadata.name}`);
  }

  get namespaces(): string[] {
    return this.#objects.map(({ metadata }) => metadata.namespace);
  }

  of(kind: 'Service'): readonly Service[];
  of(kind: 'ConfigMap'): readonly ConfigMap[];
  of(kind: 'RayCluster'): readonly RayCluster[];
  of(kind: 'PersistentVolumeClaim'): readonly Named[];
  of(kind: string): readonly Named[] {
    return this.#objects.filter((one) => one.kind === kind);
  }

  get workloads(): readonly Workload[] {
    const kinds = ['Deployment', 'StatefulSet', 'Job'];
    return this.#objects.filter((one) => kinds.includes(one.kind)) as unknown as Workload[];
  }

  /** Pods in the order of the file. */
  get templates(): readonly Template[] {
    return [
      ...this.of('RayCluster').flatMap(({ spec }) => [
        spec.headGroupSpec,
        ...spec.workerGroupSpecs,
      ]),
      ...this.workloads.map(({ spec }) => spec),
    ].map(({ template }) => template);
  }

  /** The commands that the comment at its beginning tells, one a line. */
  get commands(): string[] {
    return this.text
      .slice(0, this.text.indexOf('\napiVersion'))
      .replaceAll(/\\\n#\s*/gu, '')
      .split('\n')
      .flatMap((line) => {
        const told = /^# {3}(?<command>\S.*)$/u.exec(line)?.groups?.['command'];
        return told === undefined ? [] : [told.replace(/\s+#\s.*$/u, '')];
      });
  }
}

/** A secret or a ConfigMap that a documented command makes. */
export interface Made {
  readonly kind: 'secret' | 'configmap';
  readonly name: string;
  /** Its keys; those of a folder of the package are the names of its files. */
  readonly literals: Readonly<Record<string, string>>;
  readonly folder?: string;
}

/** What the `kubectl create` commands of manifests make. */
export function madeBy(commands: readonly string[]): Made[] {
  return commands.flatMap((command) => {
    const found = / create (?<kind>secret generic|configmap) (?<name>\S+) (?<from>.*)$/u.exec(
      command,
    )?.groups;
    if (found === undefined) return [];
    const { kind = '', name = '', from = '' } = found;
    const literals = [...from.matchAll(/--from-literal=(?<key>\w+)=(?<value>"[^"]*"|\S+)/gu)];
    const folder = /--from-file=(?<folder>\S+)/u.exec(from)?.groups?.['folder'];
    return [
      {
        kind: kind === 'configmap' ? ('configmap' as const) : ('secret' as const),
        name,
        literals: Object.fromEntries(
          literals.map(({ groups }) => [groups?.['key'] ?? '', groups?.['value'] ?? '']),
        ),
        ...(folder !== undefined && { folder }),
      },
    ];
  });
}
