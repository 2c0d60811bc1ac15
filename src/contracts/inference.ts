import { z } from 'zod';

import { ClusterSpec } from './cluster.js';
import { RunSpec } from './run.js';

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
    }),
    affinity: z.enum(['pull', 'rank']).default('pull'),
    keep: z
      .boolean()
      .default(false)
      .describe('Leave the cluster and fleet this brought up running'),
  })
  .meta({ id: 'InferenceInput' });
export type InferenceInput = z.infer<typeof InferenceInput>;
