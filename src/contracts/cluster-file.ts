import { z } from 'zod';

import {
  ClusterName,
  ClusterPorts,
  ExistingProvider,
  LocalProvider,
  NodeEnvironment,
  SshLogin,
  SshNode,
} from './cluster.js';

/**
 * The cluster file as people write it (`cluster.yaml`), published as `schemas/cluster.schema.json` for editors. The
 * workflow gets a `ClusterSpec` that is made of it.
 */

const host = SshNode.shape.host;
const one = SshNode.partial({ name: true });
/** `10.0.0.[2-9]` stands for eight hosts. */
const pattern = z
  .string()
  .regex(
    /^[A-Za-z0-9_.:%-]*(?:\[\d+-\d+\][A-Za-z0-9_.:%-]*)?$/,
    'expected a host, or a range such as 10.0.0.[2-9]',
  );

const Host = z.union([pattern, one]);
const Group = z.strictObject({
  group: z
    .string()
    .regex(/^[a-z0-9][a-z0-9.-]{0,57}$/, 'expected lower-case letters, digits, . and -')
    .describe('Its nodes are called <group>-1, <group>-2, …'),
  hosts: z.array(pattern).min(1),
  count: z
    .int()
    .nonnegative()
    .optional()
    .describe('How many are wanted; the others are spares. Default all'),
  ssh: SshLogin.optional(),
  labels: SshNode.shape.labels,
  resources: SshNode.shape.resources,
});
const Member = z.union([pattern, one, Group]);

const command = z.union([
  z.string().min(1).describe('For the shell of the node'),
  z.array(z.string()).min(1),
]);

/** Environment with files on this machine instead of their text. */
const Environment = NodeEnvironment.extend({
  requirements: z.string().min(1).optional().describe('Requirements file for uv, beside this file'),
  conda: z.string().min(1).optional().describe('environment.yml, beside this file'),
}).check((context) => {
  const sources = ['python', 'requirements', 'conda', 'image'] as const;
  const given = sources.filter((key) => context.value[key] !== undefined);
  const [first, second] = given;
  const pythonOfImage = first === 'python' && second === 'image' && given.length === 2;
  const complain = (message: string, path: PropertyKey[] = []): void => {
    context.issues.push({ code: 'custom', input: context.value, path, message });
  };
  if (given.length !== 1 && !pythonOfImage) {
    complain('give exactly one of python, requirements, conda and image');
  }
  const { image, mounts = [] } = context.value;
  if (image === undefined && mounts.length > 0) {
    complain('only a container needs mounts: give an image', ['mounts']);
  }
  const places = mounts.map((mount) => mount.replace(/:ro$/u, '').split(':').at(-1));
  for (const [index, place] of places.entries()) {
    if (places.indexOf(place) < index) complain(`${place} is mounted twice`, ['mounts', index]);
  }
});

const Ssh = SshLogin.extend({
  parallelism: z
    .int()
    .min(1)
    .max(256)
    .optional()
    .describe('Hosts that are worked on at once; default 16'),
});

const SshFile = z
  .strictObject({
    name: ClusterName,
    provider: z.literal('ssh'),
    head: z.union([host, one]),
    workers: z.array(Member).default([]),
    spares: z.array(Host).default([]).describe('Take the place of nodes that keep failing'),
    ssh: Ssh.default({}),
    ports: ClusterPorts.extend({
      workers: z
        .string()
        .regex(/^\d+-\d+$/, 'expected first-last')
        .optional()
        .describe('Ports of worker processes on each node, such as 20000-20999'),
    }).prefault({}),
    environment: Environment,
    setup: z.array(command).default([]).describe('Commands that run on each node before it starts'),
    setupTimeoutSeconds: z
      .int()
      .min(1)
      .max(7200)
      .optional()
      .describe('For each of them; default 900'),
    directory: z.string().optional().describe('Folder on the nodes; default /tmp'),
    tokenAuth: z.boolean().default(true).describe('Ray asks for a token'),
    gcsStorage: z
      .enum(['memory', 'rocksdb'])
      .optional()
      .describe('rocksdb: engines outlive a lost head'),
    idleTimeoutMinutes: z
      .number()
      .positive()
      .optional()
      .describe('The cluster goes when nobody used it for so long'),
  })
  .meta({ id: 'SshClusterFile' });
export type SshFile = z.infer<typeof SshFile>;

const LocalFile = LocalProvider.extend({ name: ClusterName }).meta({ id: 'LocalClusterFile' });
const ExistingFile = ExistingProvider.extend({ name: ClusterName }).meta({
  id: 'ExistingClusterFile',
});

export const ClusterFile = z.discriminatedUnion('provider', [LocalFile, ExistingFile, SshFile]);
export type ClusterFile = z.infer<typeof ClusterFile>;
