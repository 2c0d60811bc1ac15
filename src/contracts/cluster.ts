import { z } from 'zod';

/** Name of a cluster. */
export const ClusterName = z.string().regex(/^[a-z0-9][a-z0-9-]{0,31}$/);

/** Raylets on this host: one head without resources for engines unless there are no workers. */
export const LocalProvider = z
  .strictObject({
    provider: z.literal('local'),
    workers: z.int().nonnegative().default(0).describe('Worker nodes; 0 puts engines on the head'),
    cpusPerNode: z.number().positive().optional().describe('Logical CPUs Ray may place per node'),
    gpusPerNode: z.number().nonnegative().optional(),
    gcsStorage: z
      .enum(['memory', 'rocksdb'])
      .optional()
      .describe('rocksdb (alpha in Ray): engines outlive a lost head; default memory'),
  })
  .meta({ id: 'LocalProvider' });

/** A cluster somebody else brought up: it is attached to and never torn down. */
export const ExistingProvider = z
  .strictObject({
    provider: z.literal('existing'),
    address: z
      .string()
      .regex(/^(?:\[[\dA-Fa-f:.%]+\]|[^\s/:@]+):\d{1,5}$/, 'expected HOST:PORT, as of the GCS')
      .describe('GCS address host:port'),
    dashboardUrl: z
      .string()
      .regex(
        /^https?:\/\/(?:\[[\dA-Fa-f:.%]+\]|[^\s/:@?#]+)(?::\d{1,5})?(?:\/\S*)?$/,
        'expected http://HOST:PORT',
      )
      .describe('http://host:8265'),
    tokenFile: z.string().optional().describe('Ray token file (RAY_AUTH_TOKEN_PATH)'),
  })
  .meta({ id: 'ExistingProvider' });

/** A word that may stand in a command line, a file name and an ssh argument: never an option. */
const hostName = z
  .string()
  .regex(/^[A-Za-z0-9_][A-Za-z0-9_.:%-]*$/, 'expected a host name, an address or an ssh alias')
  .max(253);
const port = z.int().min(1).max(65_535);
/** Paths on nodes stand in Ray's arguments and in socket paths. */
const nodePath = z
  .string()
  .regex(/^\/[\w./@+-]*$/, 'expected an absolute path of letters, digits and ./_@+-');

/** How to log in on a node; what a node says goes before what the cluster says. */
export const SshLogin = z
  .strictObject({
    user: z
      .string()
      .regex(/^[A-Za-z_][\w.-]*$/, 'expected a user name')
      .optional(),
    port: port.optional().describe('Default 22, or what the ssh configuration says'),
    identityFile: z.string().min(1).optional().describe('Private key on this machine'),
    knownHosts: z.string().min(1).optional().describe('Known-hosts file on this machine'),
    jump: z
      .array(
        z
          .string()
          .regex(
            /^(?:[\w.-]+@)?(?:\[[\da-fA-F:]+\]|[A-Za-z0-9_][\w.-]*)(?::\d+)?$/,
            'expected user@host:port',
          ),
      )
      .optional()
      .describe('Hosts to go through, first the one nearest to this machine'),
    config: z.string().min(1).optional().describe('ssh configuration instead of ~/.ssh/config'),
  })
  .meta({ id: 'SshLogin' });

/** What Ray may place on a node. */
export const NodeResources = z
  .strictObject({
    num_cpus: z.int().nonnegative().optional().describe('Logical CPUs; default what the host has'),
    num_gpus: z.int().nonnegative().optional().describe('Default what the host has'),
    custom: z
      .record(
        z
          .string()
          .regex(/^(?!(?:CPU|GPU|memory|object_store_memory)$).+$/, 'use num_cpus and num_gpus'),
        z.number().nonnegative(),
      )
      .optional()
      .describe('Custom resources of Ray'),
  })
  .meta({ id: 'NodeResources' });

/** As Ray takes them: what a label is called may begin with a domain. */
const labelValue = /^[A-Za-z0-9](?:[\w.-]{0,61}[A-Za-z0-9])?$/;
const labelName =
  /^(?:[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?\/)?[A-Za-z0-9](?:[\w.-]{0,61}[A-Za-z0-9])?$/;

/** One host of a cluster over ssh. */
export const SshNode = z
  .strictObject({
    name: z
      .string()
      // It is the value of a label of Ray, too.
      .regex(
        /^[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?$/,
        'expected lower-case letters, digits, and within them . and -',
      ),
    host: hostName.describe('Address, host name or ssh alias'),
    address: z
      .string()
      .min(1)
      .optional()
      .describe('Address that the other nodes reach it at; default the one that ssh came to'),
    ssh: SshLogin.optional(),
    labels: z
      .record(
        z.string().regex(labelName, 'expected a label name'),
        z.string().regex(labelValue, 'expected a label value'),
      )
      .optional(),
    resources: NodeResources.optional(),
  })
  .meta({ id: 'SshNode' });
export type SshNode = z.infer<typeof SshNode>;

/** Ports of a cluster over ssh: what firewalls have to let through between the nodes. */
export const ClusterPorts = z
  .strictObject({
    gcs: port.default(6379).describe('Head: what nodes and drivers connect to'),
    dashboard: port.default(8265).describe('Head: dashboard, jobs and state'),
    client: port.default(10_001).describe('Head: Ray client'),
    nodeManager: port.optional().describe('Each node; default any free port'),
    objectManager: port.optional().describe('Each node; default any free port'),
    dashboardAgentGrpc: port
      .optional()
      .describe('Each node: logs of jobs come from there to the head; default any free port'),
    dashboardAgentListen: port.optional().describe('Each node; default any free port'),
    runtimeEnvAgent: port.optional().describe('Each node; default any free port'),
    metricsExport: port
      .optional()
      .describe("Each node: Ray's metrics for a Prometheus; default any free port"),
    workers: z
      .tuple([port, port])
      .optional()
      .describe('Each node: first and last port of its worker processes; default 10002 to 19999'),
  })
  .meta({ id: 'ClusterPorts' });
export type ClusterPorts = z.infer<typeof ClusterPorts>;

/** Where a node's Python, Ray and vLLM come from: one of `python`, `requirements`, `conda` and `image`. */
export const NodeEnvironment = z
  .strictObject({
    python: z
      .string()
      .min(1)
      .optional()
      .describe('Python that is there on each node; with an image: the one in it'),
    pythonVersion: z
      .string()
      .regex(/^3\.\d+(?:\.\d+)?$/, 'expected 3.11 or 3.11.13')
      .optional()
      .describe('For requirements, maybe with its patch version; default 3.11'),
    requirements: z.string().optional().describe('Text of a requirements file for uv'),
    conda: z.string().optional().describe('Text of an environment.yml'),
    image: z
      .string()
      .min(1)
      .optional()
      .describe('Container image; runs with --network host, as the user of ssh'),
    mounts: z
      .array(
        z
          .string()
          .regex(
            /^\/[^:\n]+(?::\/[^:\n]+)?(?::ro)?$/,
            'expected PATH, PATH:PATH-IN-CONTAINER or either with :ro, absolute paths',
          ),
      )
      .optional()
      .describe('For an image: what of its host a container sees, as host[:container][:ro]'),
    variables: z
      .record(z.string().regex(/^[A-Za-z_]\w*$/), z.string())
      .optional()
      .describe('Environment of the nodes: no secrets'),
    pass: z
      .array(z.string().regex(/^[A-Za-z_]\w*$/))
      .optional()
      .describe(
        'Variables of the control worker that the nodes get, too, such as AWS_SECRET_ACCESS_KEY',
      ),
  })
  .meta({ id: 'NodeEnvironment' });
export type NodeEnvironment = z.infer<typeof NodeEnvironment>;

/** Hosts that are reached with ssh. */
export const SshProvider = z
  .strictObject({
    provider: z.literal('ssh'),
    head: SshNode,
    workers: z
      .array(SshNode)
      .describe('Worker nodes in order of preference; those beyond `count` are spares'),
    count: z.int().nonnegative().describe('How many of the workers are wanted'),
    ssh: SshLogin,
    parallelism: z.int().min(1).max(256).default(16).describe('Hosts that are worked on at once'),
    ports: ClusterPorts,
    environment: NodeEnvironment,
    setup: z
      .array(z.array(z.string()).min(1))
      .describe('Commands that run on a node before it starts, as argument arrays'),
    stepTimeoutSeconds: z.int().min(1).max(7200).default(900).describe('For each set-up command'),
    directory: nodePath
      .default('/tmp')
      .describe('Folder on the nodes for what a node needs while it runs'),
    tokenAuth: z.boolean().default(true),
    gcsStorage: z.enum(['memory', 'rocksdb']).default('memory'),
    idleMinutes: z
      .number()
      .positive()
      .optional()
      .describe('The cluster goes when it has had no engine, job or user for so long'),
  })
  .meta({ id: 'SshProvider' });
export type SshProvider = z.infer<typeof SshProvider>;

export const ClusterSpec = z
  .strictObject({
    name: ClusterName,
    nodes: z.discriminatedUnion('provider', [LocalProvider, ExistingProvider, SshProvider]),
  })
  .meta({ id: 'ClusterSpec' });
export type ClusterSpec = z.infer<typeof ClusterSpec>;

/** How to reach a cluster that is up. Carries the path of the token, never the token. */
export const ClusterAddress = z
  .strictObject({
    name: ClusterName,
    address: z.string().describe('GCS address host:port'),
    dashboardUrl: z.string(),
    tokenFile: z.string().optional(),
  })
  .meta({ id: 'ClusterAddress' });
export type ClusterAddress = z.infer<typeof ClusterAddress>;
