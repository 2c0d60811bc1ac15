import { z } from 'zod';

const name = z.string().regex(/^[a-z0-9][a-z0-9-]{0,31}$/);

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
    address: z.string().min(1).describe('GCS address host:port'),
    dashboardUrl: z.string().min(1).describe('http://host:8265'),
    tokenFile: z.string().optional().describe('Ray token file (RAY_AUTH_TOKEN_PATH)'),
  })
  .meta({ id: 'ExistingProvider' });

export const ClusterSpec = z
  .strictObject({
    name,
    nodes: z.discriminatedUnion('provider', [LocalProvider, ExistingProvider]),
  })
  .meta({ id: 'ClusterSpec' });
export type ClusterSpec = z.infer<typeof ClusterSpec>;

/** How to reach a cluster that is up. Carries the path of the token, never the token. */
export const ClusterAddress = z
  .strictObject({
    name,
    address: z.string().describe('GCS address host:port'),
    dashboardUrl: z.string(),
    tokenFile: z.string().optional(),
  })
  .meta({ id: 'ClusterAddress' });
export type ClusterAddress = z.infer<typeof ClusterAddress>;
