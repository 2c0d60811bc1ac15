import { z } from 'zod';

import { InferenceInput } from './inference.js';
import { SecretRef } from './model.js';

/** When a schedule starts its run, as its owner wrote it. */
export const ScheduleTiming = z.strictObject({
  cron: z.array(z.string().min(1)).default([]).describe('Five fields; with seven, seconds first'),
  at: z
    .array(z.string().regex(/^([01]\d|2[0-3]):[0-5]\d$/u))
    .default([])
    .describe('Times of day, HH:MM'),
  on: z
    .array(z.enum(['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat']))
    .default([])
    .describe('Days of the week for `at`; none for all'),
  timeZone: z.string().min(1).describe('Name of the tz database'),
  jitterSeconds: z.int().nonnegative().default(0),
});
export type ScheduleTiming = z.infer<typeof ScheduleTiming>;

/** What happens when a run is due while the one before goes on, and with what could not be started. */
export const SchedulePolicies = z.strictObject({
  overlap: z
    .enum(['skip', 'buffer-one', 'buffer-all', 'cancel-other', 'terminate-other', 'allow-all'])
    .default('buffer-all'),
  catchUpSeconds: z
    .int()
    .min(10)
    .default(3 * 86_400)
    .describe('For how long a run that could not be started is still started'),
  pauseOnFailure: z.boolean().default(false),
});
export type SchedulePolicies = z.infer<typeof SchedulePolicies>;

/** Where a message is posted. A user or password in it is refused by fetch, and would stand in histories. */
export const WebhookUrl = z
  .url({ protocol: /^https?$/u })
  .refine(
    (text) =>
      !URL.canParse(text) || (new URL(text).username === '' && new URL(text).password === ''),
    'holds a user or a password, which are not sent: sign messages with a key instead',
  );

/** Somebody to be told how a scheduled run ended. */
export const Notification = z.discriminatedUnion('kind', [
  z
    .strictObject({
      kind: z.literal('webhook'),
      url: WebhookUrl.optional(),
      urlFrom: SecretRef.optional().describe('Holds the URL, read where the control worker runs'),
      secret: SecretRef.optional().describe(
        'Key of the signature, read where the control worker runs',
      ),
    })
    .refine(
      ({ url, urlFrom }) => (url === undefined) !== (urlFrom === undefined),
      'needs its URL, or what holds it, and not both',
    ),
  z.strictObject({
    kind: z.literal('command'),
    command: z.array(z.string()).min(1).describe('Program and arguments; no shell'),
    env: z.record(z.string(), z.string()).default({}),
  }),
]);
export type Notification = z.infer<typeof Notification>;

/** Which outputs of earlier runs are removed. A run never removes what is newer than itself. */
export const Retention = z.strictObject({
  keepLast: z.int().positive().optional().describe('The newest runs that stay'),
  keepDays: z.int().positive().optional().describe('Older ones go'),
});
export type Retention = z.infer<typeof Retention>;

/** What a schedule starts each time. Patterns hold {date}, {hour} and the like; see `fillPattern`. */
export const ScheduledRun = z.strictObject({
  schedule: z.string().regex(/^[a-z0-9][a-z0-9-]{0,47}$/u),
  timing: ScheduleTiming,
  inference: InferenceInput.describe('Its run id and input are made from the patterns'),
  input: z.string().min(1),
  runId: z.string().min(1).default('{schedule}-{date}'),
  output: z.string().min(1).optional().describe('Where the results are copied to'),
  onRunningCluster: z
    .boolean()
    .default(false)
    .describe('Uses the nodes of a cluster of this name that is up, whatever they are'),
  needsCluster: z
    .boolean()
    .optional()
    .describe('Waits for a cluster of this name, and fails without: none is started in its place'),
  noInput: z.enum(['fail', 'skip']).default('fail'),
  waitForInputSeconds: z.int().nonnegative().default(0),
  deadlineSeconds: z.int().positive().optional().describe('After the start'),
  retention: Retention.optional(),
  notify: z.array(Notification).default([]),
});
export type ScheduledRun = z.infer<typeof ScheduledRun>;

/** One start of a schedule, with its patterns filled in. */
export interface Occurrence {
  readonly schedule: string;
  readonly runId: string;
  /** ISO 8601 time that the run is for, however late it starts. */
  readonly nominal: string;
  /** Its date in the schedule's time zone, `YYYY-MM-DD`. */
  readonly date: string;
  readonly input: string;
  readonly output?: string;
}
