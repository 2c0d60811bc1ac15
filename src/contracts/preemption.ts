import { z } from 'zod';

/** A node is going to be taken away: what the node's sentinel tells the workflows about it. */
export const PreemptionNotice = z
  .strictObject({
    nodeId: z.string().min(1).describe('Ray node id, hex'),
    source: z
      .enum(['aws', 'gcp', 'azure', 'file', 'url', 'ray'])
      .describe('Who gave notice; ray: the node is drained in Ray, e.g. after SIGTERM'),
    deadline: z.int().nonnegative().describe('When the node goes, milliseconds since the epoch'),
  })
  .meta({ id: 'PreemptionNotice' });
export type PreemptionNotice = z.infer<typeof PreemptionNotice>;

/** Asks one incarnation of one engine to take no more work and to be done with what it has by the deadline. */
export const DrainInput = z
  .strictObject({
    specHash: z.string(),
    deadline: z.int().nonnegative().describe('Milliseconds since the epoch'),
  })
  .meta({ id: 'DrainInput' });
export type DrainInput = z.infer<typeof DrainInput>;

export const DrainResult = z
  .strictObject({
    engine: z.string().describe('Fleet, slot and incarnation that was drained'),
    waitingRows: z.int().nonnegative().describe('Rows given back before a token of them was there'),
    cutRows: z.int().nonnegative().describe('Rows given back while they were being decoded'),
    seconds: z.number().nonnegative(),
  })
  .meta({ id: 'DrainResult' });
export type DrainResult = z.infer<typeof DrainResult>;
