import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

import type { Client } from '@temporalio/client';
import { temporal } from '@temporalio/proto';

const { History } = temporal.api.history.v1;

const inTests = (file: string): string => fileURLToPath(new URL(file, import.meta.url));

/** The package's version: the release that histories are recorded for. */
export const RELEASE = (
  JSON.parse(readFileSync(inTests('../../package.json'), 'utf8')) as { version: string }
).version;

/** A folder of each release. */
const HISTORIES = inTests('../replay/histories');

/** Releases with kept histories. */
export const keptReleases = (): string[] => readdirSync(HISTORIES).toSorted();

/** Names of the histories that a release left, as `fleet-up-and-down`. */
export const keptHistories = (release: string): string[] =>
  readdirSync(path.join(HISTORIES, release))
    .filter((file) => file.endsWith('.json'))
    .map((file) => path.basename(file, '.json'));

export const readHistory = (release: string, name: string): KeptHistory =>
  JSON.parse(readFileSync(fileOf(release, name), 'utf8')) as KeptHistory;

const fileOf = (release: string, name: string): string =>
  path.join(HISTORIES, release, `${name}.json`);

/**
 * `history` is the protobuf message, compressed, in base64: the SDK's reader of JSON histories wants the same
 * copy of protobufjs below `@temporalio/common` and `@temporalio/proto`, which npm does not give it.
 */
export interface KeptHistory {
  readonly workflowId: string;
  readonly events: number;
  readonly history: string;
}

/** Whether tests keep histories of what they run: see `npm run histories`. */
export const RECORDING = process.env['RECORD_HISTORIES'] !== undefined;

/** Keeps the first run of a workflow when it has ended, unless this release has a history of this name. */
export async function keepHistory(client: Client, name: string, workflowId: string): Promise<void> {
  const file = fileOf(RELEASE, name);
  if (existsSync(file)) return;
  const handle = client.workflow.getHandle(workflowId);
  await handle.result().catch(() => undefined);
  const { raw } = await handle.describe();
  const runId = raw.workflowExecutionInfo?.firstRunId;
  const history = await client.workflow.getHandle(workflowId, runId ?? '').fetchHistory();
  const bytes = History.encode(withoutHost(history)).finish();
  const kept: KeptHistory = {
    workflowId,
    events: history.events?.length ?? 0,
    history: gzipSync(bytes).toString('base64'),
  };
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, `${JSON.stringify(kept, null, 2)}\n`);
}

/** Names of hosts, processes and folders are of no use in a kept history. Changes `value` in place. */
function withoutHost<T>(value: T): T {
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return value;
  const fields = value as Record<string, unknown>;
  for (const [key, field] of Object.entries(fields)) {
    if (key === 'identity') fields[key] = 'worker';
    else if (key === 'stackTrace') fields[key] = '';
    else if (typeof field === 'string' && field.includes('@')) fields[key] = 'queue';
    else withoutHost(field);
  }
  return value;
}
