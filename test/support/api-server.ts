import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { isOver, type RunSnapshot } from '../../src/client/snapshot.js';
import { KeyStore } from '../../src/server/keys.js';
import { NotNow, type Runs } from '../../src/server/runs.js';
import { createServer, recordsFolder, type Server, serverLogger } from '../../src/server/serve.js';

export const MODEL = 'org/model';
const CHAT = '/v1/chat/completions';

/** Runs without Temporal: a test says what each is like, and that Temporal is away. */
export class ScriptedRuns implements Runs {
  readonly started: { id: string; input: string; model: string; expiresAt: number }[] = [];
  readonly stopped: string[] = [];
  readonly known = new Map<string, RunSnapshot>();
  away = false;
  refusal: Error | undefined;

  async start(id: string, input: string, model: string, expiresAt: number): Promise<void> {
    this.answer();
    if (this.refusal !== undefined) throw this.refusal;
    if (this.known.has(id)) return;
    this.started.push({ id, input, model, expiresAt });
    this.known.set(id, snapshot(id, { state: 'validating' }));
  }

  async look(id: string): Promise<RunSnapshot | 'gone'> {
    this.answer();
    return this.known.get(id) ?? 'gone';
  }

  async stop(id: string): Promise<void> {
    this.answer();
    const run = this.known.get(id);
    if (run === undefined || isOver(run.state)) return;
    this.stopped.push(id);
    this.known.set(id, { ...run, state: 'cancelling' });
  }

  async ping(): Promise<void> {
    this.answer();
  }

  private answer(): void {
    if (this.away) throw new NotNow('Temporal does not answer.');
  }
}

export function snapshot(runId: string, fields: Partial<RunSnapshot>): RunSnapshot {
  return {
    runId,
    state: 'in_progress',
    phase: 'generating',
    startedAt: 0,
    at: Date.now(),
    doneRows: 0,
    failedRows: 0,
    completionTokens: 0,
    ranks: 1,
    retries: 0,
    troubles: [],
    engines: [],
    ...fields,
  };
}

/** One line of a batch. */
export const line = (id: string, fields: object = {}, body: object = {}): string =>
  JSON.stringify({
    custom_id: id,
    method: 'POST',
    url: CHAT,
    body: { model: MODEL, messages: [{ role: 'user', content: 'hi' }], ...body },
    ...fields,
  });

export const CREATE = { endpoint: CHAT, completion_window: '24h' };

interface Settings {
  readonly bytes?: number;
  readonly rows?: number;
  readonly storedBytes?: number;
  readonly requestsPerMinute?: number;
  readonly windowSeconds?: number;
}

/** A server on a store of its own, asked without a network. */
export class ApiServer {
  readonly store = mkdtempSync(path.join(tmpdir(), 'rankflow-api-'));
  readonly runs = new ScriptedRuns();
  readonly keys = new KeyStore(recordsFolder(this.store));
  /** Every line of its log. */
  readonly log: string[] = [];
  key = '';
  server!: Server;

  static async start(settings: Settings = {}): Promise<ApiServer> {
    const api = new ApiServer();
    api.key = await api.newKey();
    await api.restart(settings);
    return api;
  }

  async newKey(): Promise<string> {
    const made = await this.keys.create('test');
    return made?.key ?? '';
  }

  /** Another server on the same store, as after a crash: nothing of the one before is asked to end. */
  async restart(settings: Settings = {}): Promise<void> {
    this.server = await createServer({
      store: this.store,
      runs: this.runs,
      models: new Set([MODEL]),
      limits: {
        ...{ bytes: settings.bytes ?? 1_000_000, rows: settings.rows ?? 1_000 },
        ...(settings.storedBytes !== undefined && { storedBytes: settings.storedBytes }),
      },
      requestsPerMinute: settings.requestsPerMinute ?? 100_000,
      windowSeconds: settings.windowSeconds ?? 86_400,
      version: '1.2.3',
      logger: serverLogger({ write: (text: string) => void this.log.push(text) }, 'trace'),
    });
  }

  async ask(
    method: 'GET' | 'POST' | 'DELETE',
    url: string,
    { body, key = this.key }: { body?: object | FormData; key?: string } = {},
  ) {
    const form = body instanceof FormData ? new Response(body) : undefined;
    const response = await this.server.app.inject({
      method,
      url,
      headers: {
        ...(key !== '' && { authorization: `Bearer ${key}` }),
        ...(form && { 'content-type': form.headers.get('content-type') ?? '' }),
      },
      ...(body !== undefined && {
        payload: form === undefined ? body : Buffer.from(await form.arrayBuffer()),
      }),
    });
    const { statusCode: status, headers, body: text } = response;
    // oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- the shape that a test expects
    return { status, headers, text, json: <T = { id: string }>() => response.json<T>() };
  }

  /** The answer of a request that has to work. */
  async get<T = Record<string, unknown>>(
    ...[method, url, options]: Parameters<ApiServer['ask']>
  ): Promise<T> {
    const response = await this.ask(method, url, options);
    if (response.status !== 200) throw new Error(`${response.status}: ${response.text}`);
    return response.json<T>();
  }

  upload(text: string, fields: Record<string, string> = { purpose: 'batch' }, key = this.key) {
    const form = new FormData();
    for (const [name, value] of Object.entries(fields)) form.set(name, value);
    form.set('file', new Blob([text]), 'requests.jsonl');
    return this.ask('POST', '/v1/files', { body: form, key });
  }

  /** Uploads lines and makes a batch of them. */
  async batchOf(lines: readonly string[], fields: object = {}): Promise<string> {
    const { id } = (await this.upload(`${lines.join('\n')}\n`)).json();
    const body = { ...CREATE, input_file_id: id, ...fields };
    return (await this.get<{ id: string }>('POST', '/v1/batches', { body })).id;
  }

  /** What happens every few seconds: all open batches are looked after. */
  async rounds(count = 2): Promise<void> {
    for (let n = 0; n < count; n++) await this.server.batches.advanceAll();
  }

  /** Writes what the finalizer of a run writes. */
  finish(runId: string, output: string, errors = '', state = 'completed'): void {
    const folder = path.join(this.store, 'runs', runId);
    mkdirSync(path.join(folder, 'final'), { recursive: true });
    const part = (name: string, text: string) => {
      writeFileSync(path.join(folder, 'final', name), text);
      const rows = text.split('\n').length - 1;
      return { path: `runs/${runId}/final/${name}`, size: Buffer.byteLength(text), rows };
    };
    const manifest = {
      ...{ state, promptTokens: 30, completionTokens: 12 },
      output: part('output.jsonl', output),
      errors: part('errors.jsonl', errors),
    };
    const { rows: succeeded } = manifest.output;
    const { rows: failed } = manifest.errors;
    const counts = { rows: succeeded + failed, succeeded, failed };
    writeFileSync(path.join(folder, 'manifest.json'), JSON.stringify({ ...manifest, ...counts }));
  }

  async close(): Promise<void> {
    await this.server.app.close();
    rmSync(this.store, { recursive: true, force: true });
  }
}
