import { z } from 'zod';

import { ClusterSpec } from './cluster.js';
import { FleetScaling } from './fleet.js';
import { RunSpec } from './run.js';

/** Which of several runs goes first on the queues that they share; see Temporal's priority and fairness. */
export const RunPriority = z
  .strictObject({
    key: z.int().min(1).max(5).default(3).describe('1 goes before 2, and so on'),
    weight: z
      .number()
      .min(0.001)
      .max(1000)
      .default(1)
      .describe('Share of the engines among runs of the same key'),
  })
  .meta({ id: 'RunPriority' });
export type RunPriority = z.infer<typeof RunPriority>;

/** What the CLI and schedules start: a run with everything it needs brought up around it. */
export const InferenceInput = z
  .strictObject({
    run: RunSpec,
    specHash: z.string(),
    cluster: ClusterSpec,
    fleet: z.strictObject({
      name: z.string(),
      engines: z.int().positive(),
      maxConcurrentBatches: z.int().positive().default(2),
      rowsPerEngine: z
        .int()
        .positive()
        .optional()
        .describe('Rows one engine may have in work at once; sizes the windows of the ranks'),
      scaling: FleetScaling.optional(),
      idleTimeoutSeconds: z.int().positive().optional(),
    }),
    affinity: z.enum(['pull', 'rank']).default('pull'),
    deadline: z.iso
      .datetime({
        error:
          'expected a length of time such as 8h, of a hundred years at most, or a time with its zone',
      })
      .optional()
      .describe('When the run expires: what is done is kept, the rest become batch_expired lines'),
    priority: RunPriority.optional(),
    keep: z
      .boolean()
      .default(false)
      .describe('Leave the cluster and fleet this brought up running'),
  })
  .meta({ id: 'InferenceInput' });
export type InferenceInput = z.infer<typeof InferenceInput>;
