import path from 'node:path';

import { z } from 'zod';

import { listFolder, RecordFolder } from './records.js';
import { Batch } from './schemas.js';

const BatchRequest = z.object({
  id: z.string(),
  inputFileId: z.string(),
  endpoint: z.string(),
  completionWindow: z.string(),
  metadata: z.record(z.string(), z.string()).nullable(),
  /** Seconds since the epoch. */
  createdAt: z.int(),
  expiresAt: z.int(),
  /** How long its output is kept, in seconds; null without end. */
  outputSeconds: z.int().nullable(),
});
export type BatchRequest = z.infer<typeof BatchRequest>;

const Started = z.object({ model: z.string(), rows: z.int() });
const Moment = z.object({ at: z.int() });

/** Moments that are kept as they are first seen. `expiring`: its time is over, and its run is ending. */
const MOMENTS = ['inProgress', 'finalizing', 'cancelling', 'expiring'] as const;
export type Moment = (typeof MOMENTS)[number];

/** Everything that is recorded of a batch. */
export interface BatchState {
  readonly request: BatchRequest;
  /** Once its run is started. */
  readonly started?: z.infer<typeof Started>;
  /** Seconds since the epoch. */
  readonly moments: Readonly<Partial<Record<Moment, number>>>;
  /** The batch as it ended, which it stays. */
  readonly ended?: Batch;
}

/**
 * The batches of one namespace: a folder each, in which each step of its life adds one small file that never
 * changes. Whoever reads them, after whatever crash, sees how far the batch is.
 */
export class BatchRecords {
  private readonly folder: string;

  constructor(namespaceFolder: string) {
    this.folder = path.join(namespaceFolder, 'batches');
  }

  async create(request: BatchRequest): Promise<void> {
    await this.of(request.id, BatchRequest).create('request', request);
  }

  async load(id: string): Promise<BatchState | undefined> {
    const request = await this.of(id, BatchRequest).read('request');
    if (request === undefined) return undefined;
    const ended = await this.of(id, Batch).read('ended');
    if (ended !== undefined) return { request, moments: {}, ended };
    const started = await this.of(id, Started).read('started');
    const moments: Partial<Record<Moment, number>> = {};
    for (const name of MOMENTS) {
      const moment = await this.of(id, Moment).read(name);
      if (moment !== undefined) moments[name] = moment.at;
    }
    return { request, moments, ...(started && { started }) };
  }

  async started(id: string, started: z.infer<typeof Started>): Promise<void> {
    await this.of(id, Started).create('started', started);
  }

  /** Keeps when something was first seen; a second time changes nothing. */
  async saw(id: string, moment: Moment, at: number): Promise<void> {
    await this.of(id, Moment).create(moment, { at });
  }

  async end(batch: Batch): Promise<void> {
    await this.of(batch.id, Batch).create('ended', batch);
  }

  /** Ids of all batches, ascending. */
  async ids(): Promise<string[]> {
    return listFolder(this.folder);
  }

  private of<T>(id: string, schema: z.ZodType<T>): RecordFolder<T> {
    return new RecordFolder(path.join(this.folder, id), schema);
  }
}
