import { createReadStream } from 'node:fs';

import OpenAI, { APIError } from 'openai';

import { parseLines } from '../e2e/rankflow.js';
import type { BatchSeen, Line, Refusal, Tour, TourInput } from './tour.js';

type Batch = OpenAI.Batches.Batch;

const CHAT = '/v1/chat/completions';
const OVER: ReadonlySet<string> = new Set(['completed', 'failed', 'cancelled', 'expired']);
const over = ({ status }: Batch): boolean => OVER.has(status);

/** The way of a user through the API with the official Node client, as it is. */
export async function nodeTour(given: TourInput): Promise<Tour> {
  // Errors come at once: by default the client tries some of them again.
  const client = (apiKey: string) => new OpenAI({ baseURL: given.baseURL, apiKey, maxRetries: 0 });
  const api = client(given.key);
  const upload = (file: string) =>
    api.files.create({ file: createReadStream(file), purpose: 'batch' });
  const batchOf = (id: string, more: object = {}) =>
    api.batches.create({ input_file_id: id, endpoint: CHAT, completion_window: '24h', ...more });
  const wait = async (
    id: string,
    until: (batch: Batch) => boolean,
    statuses: string[] = [],
  ): Promise<Batch> => {
    const deadline = Date.now() + 240_000;
    while (Date.now() < deadline) {
      const batch = await api.batches.retrieve(id);
      if (!statuses.includes(batch.status)) statuses.push(batch.status);
      if (until(batch)) return batch;
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
    throw new Error(`${id} takes too long`);
  };
  const lines = async (id: string | null | undefined): Promise<Line[]> =>
    id ? (parseLines(await (await api.files.content(id)).text()) as Line[]) : [];
  const ids = async (pages: AsyncIterable<{ id: string }>): Promise<string[]> => {
    const found: string[] = [];
    for await (const { id } of pages) found.push(id);
    return found;
  };

  const models = await ids(api.models.list());
  const uploaded = await upload(given.small);
  const created = await batchOf(uploaded.id, { metadata: { night: '7' } });
  const statuses: string[] = [created.status];
  const completed = await wait(created.id, over, statuses);

  const running = await batchOf((await upload(given.large)).id);
  await wait(running.id, ({ request_counts: counts }) => (counts?.completed ?? 0) > 0);
  const cancelling = await api.batches.cancel(running.id);
  const cancelled = await wait(running.id, over);

  const failed = await wait((await batchOf((await upload(given.bad)).id)).id, over);
  const missing = await wait((await batchOf('file-nothing')).id, over);
  const batches = await ids(api.batches.list({ limit: 1 }));
  const inputs = await ids(api.files.list({ limit: 1, purpose: 'batch' }));
  const outputs = await ids(api.files.list({ limit: 1, purpose: 'batch_output' }));

  const stranger = client(given.otherKey);
  const refused: Record<string, Refusal> = {
    key: await refusal(() => client('sk-wrong').models.list()),
    purpose: await refusal(async () =>
      api.files.create({ file: new File(['{}'], 'f'), purpose: 'vision' }),
    ),
    file: await refusal(() => api.files.retrieve('file-nothing')),
    content: await refusal(() => api.files.content('file-nothing')),
    batch: await refusal(() => api.batches.retrieve('batch_nothing')),
    endpoint: await refusal(() => batchOf(uploaded.id, { endpoint: '/v1/moderations' })),
    ended: await refusal(() => api.batches.cancel(completed.id)),
    large: await refusal(() => upload(given.huge)),
    stranger: await refusal(() => stranger.batches.retrieve(completed.id)),
    strangersFile: await refusal(() => stranger.files.content(completed.output_file_id ?? '')),
  };
  const deleted = await api.files.delete(uploaded.id);
  refused['deleted'] = await refusal(() => api.files.retrieve(uploaded.id));
  return {
    ...{ models, statuses, batches, inputs, outputs, refused },
    uploaded: { ...uploaded },
    deleted: { ...deleted },
    created: seen(created),
    completed: seen(completed),
    cancelling: seen(cancelling),
    cancelled: seen(cancelled),
    failed: seen(failed),
    missing: seen(missing),
    output: await lines(completed.output_file_id),
    errors: await lines(completed.error_file_id),
    partial: await lines(cancelled.output_file_id),
    never: await lines(cancelled.error_file_id),
  };
}

const seen = (batch: Batch): BatchSeen => ({ ...batch }) as unknown as BatchSeen;

async function refusal(call: () => Promise<unknown>): Promise<Refusal> {
  try {
    await call();
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    const { status, code, param, type } = error as APIError;
    return {
      ...{ class: error.constructor.name, status: status ?? 0 },
      ...{ code: code ?? null, param: param ?? null, type: type ?? null },
    };
  }
  throw new Error('nothing was refused');
}
