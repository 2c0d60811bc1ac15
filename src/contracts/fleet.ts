import { z } from 'zod';

import { ClusterAddress } from './cluster.js';
import { ModelSpec } from './model.js';

/** Lets a fleet choose its number of engines by the batches that wait. */
export const FleetScaling = z
  .strictObject({
    minEngines: z.int().nonnegative().describe('Never fewer; 0 lets it go to none'),
    maxEngines: z.int().positive().describe('Never more'),
    idleSeconds: z
      .int()
      .positive()
      .default(120)
      .describe('For how long fewer engines must have sufficed before one is taken away'),
  })
  .meta({ id: 'FleetScaling' });
export type FleetScaling = z.infer<typeof FleetScaling>;

export const FleetSpec = z
  .strictObject({
    name: z.string().regex(/^[a-z0-9][a-z0-9-]{0,31}$/),
    cluster: ClusterAddress,
    model: ModelSpec,
    specHash: z.string().describe('Hex sha256 of the model spec (see specHash)'),
    engines: z.int().nonnegative().describe('Desired number of engines'),
    maxConcurrentBatches: z
      .int()
      .positive()
      .default(2)
      .describe('Batches one engine admits at once, so that decoding never runs dry'),
    scaling: FleetScaling.optional().describe(
      'Absent: the number of engines is what was asked for',
    ),
    idleTimeoutSeconds: z
      .int()
      .positive()
      .optional()
      .describe('Stops the fleet when nobody has used it for so long; absent: it stays'),
  })
  .meta({ id: 'FleetSpec' });
export type FleetSpec = z.infer<typeof FleetSpec>;

export const CheckEngineArgumentsInput = z
  .strictObject({ model: ModelSpec })
  .meta({ id: 'CheckEngineArgumentsInput' });
export type CheckEngineArgumentsInput = z.infer<typeof CheckEngineArgumentsInput>;

export const CheckEngineArgumentsResult = z
  .strictObject({ maxModelLen: z.int().positive(), architecture: z.string() })
  .meta({ id: 'CheckEngineArgumentsResult' });
export type CheckEngineArgumentsResult = z.infer<typeof CheckEngineArgumentsResult>;

/** Steps for Ray: actors to create and actors to kill. Done in one short-lived child process. */
export const ExecuteFleetPlanInput = z
  .strictObject({
    fleet: FleetSpec,
    start: z.array(z.int().nonnegative()).describe('Slots to create (get_if_exists)'),
    indexes: z
      .array(z.int().nonnegative())
      .optional()
      .describe('Index of each slot of `start`: the ranks it serves; by default the slot itself'),
    avoid: z
      .array(z.string())
      .optional()
      .describe('Ids of nodes on which none of `start` may be placed: they are cordoned'),
    stop: z.array(z.int().nonnegative()).describe('Slots to kill for good (no_restart)'),
    drained: z
      .array(z.int().nonnegative())
      .optional()
      .describe('Those of `stop` that have given back their work, or are lost: killed at once'),
    restart: z
      .array(z.int().nonnegative())
      .describe('Hung slots to kill so that Ray restarts them'),
  })
  .meta({ id: 'ExecuteFleetPlanInput' });
export type ExecuteFleetPlanInput = z.infer<typeof ExecuteFleetPlanInput>;

export const ExecuteFleetPlanResult = z
  .strictObject({
    started: z.array(z.int()),
    stopped: z.array(z.int()),
    restarted: z.array(z.int()),
  })
  .meta({ id: 'ExecuteFleetPlanResult' });
export type ExecuteFleetPlanResult = z.infer<typeof ExecuteFleetPlanResult>;

/** One slot as Ray's state API shows it. */
export const ObservedEngine = z
  .strictObject({
    slot: z.int().nonnegative(),
    actorState: z.enum(['DEPENDENCIES_UNREADY', 'PENDING_CREATION', 'ALIVE', 'RESTARTING', 'DEAD']),
    incarnation: z.string().optional().describe('<node id 8 chars>-<pid>, when ALIVE'),
    nodeId: z.string().optional(),
    restarts: z.int().nonnegative(),
    avoids: z
      .array(z.string())
      .optional()
      .describe('Ids of nodes on which Ray may not place it; absent when Ray does not say'),
    deathCause: z.string().optional(),
  })
  .meta({ id: 'ObservedEngine' });
export type ObservedEngine = z.infer<typeof ObservedEngine>;

/** Asks one incarnation of one engine to answer one token; it waits for the model to be loaded. */
export const CanaryInput = z.strictObject({ specHash: z.string() }).meta({ id: 'CanaryInput' });
export type CanaryInput = z.infer<typeof CanaryInput>;

export const CanaryResult = z
  .strictObject({
    engine: z.string(),
    loadSeconds: z.number().nonnegative(),
    maxModelLen: z.int().positive(),
    vllmVersion: z.string(),
    batches: z.int().nonnegative().optional().describe('Batches that the engine works on'),
    metrics: z.string().optional().describe('host:port where the engine serves its metrics'),
  })
  .meta({ id: 'CanaryResult' });
export type CanaryResult = z.infer<typeof CanaryResult>;
