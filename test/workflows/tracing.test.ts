import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { gunzipSync } from 'node:zlib';

import { temporal } from '@temporalio/proto';
import { DefaultLogger, Runtime, Worker, type ReplayWorkerOptions } from '@temporalio/worker';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, inject, it, vi } from 'vitest';

import { paths } from '../../src/setup/paths.js';
import { tracing, type Tracing } from '../../src/tracing/index.js';
import { Harness, WORKFLOWS } from '../support/harness.js';
import { keptHistories, keptReleases, readHistory } from '../support/kept-history.js';
import { World } from '../support/world.js';

const { History } = temporal.api.history.v1;

/** What a collector was sent, in the order in which it came. */
const exported: Buffer[] = [];
let collector: Server;
let traced: Tracing;

beforeAll(async () => {
  Runtime.install({ logger: new DefaultLogger('ERROR') });
  collector = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      if (request.url === '/v1/traces') exported.push(Buffer.concat(chunks));
      response.writeHead(200, { 'content-type': 'application/x-protobuf' }).end();
    });
  });
  await new Promise<void>((resolve) => collector.listen(0, '127.0.0.1', () => resolve()));
  expect(await tracing('too-early')).toBeUndefined();
  vi.resetModules();
  const { port } = collector.address() as AddressInfo;
  vi.stubEnv('OTEL_EXPORTER_OTLP_ENDPOINT', `http://127.0.0.1:${port}`);
  const fresh = await (await import('../../src/tracing/index.js')).tracing('test');
  if (fresh === undefined) throw new Error('no traces');
  traced = fresh;
});
afterAll(() => {
  vi.unstubAllEnvs();
  collector.closeAllConnections();
  collector.close();
});

interface Span {
  readonly name: string;
  readonly trace: string;
  readonly parent: string;
  readonly span: string;
}

/** The spans that were exported, read with OpenTelemetry's own classes for Python. */
async function spans(): Promise<Span[]> {
  const script = `
import base64, json, sys
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
for line in sys.stdin:
    request = ExportTraceServiceRequest.FromString(base64.b64decode(line))
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                print(json.dumps({"name": span.name, "trace": span.trace_id.hex(),
                                  "parent": span.parent_span_id.hex(), "span": span.span_id.hex()}))
`;
  const input = exported.map((one) => one.toString('base64')).join('\n');
  const { stdout } = await execa(paths.python, ['-c', script], { input });
  return stdout.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line) as Span]));
}

const WORKFLOWS_OF_A_RUN = [
  'inference/traced',
  'run/traced',
  'run/traced/rank-0',
  'fleet/models',
  'cluster/ray',
];
const recorded: { workflowId: string; history: temporal.api.history.v1.IHistory }[] = [];

async function failedReplays(
  options: ReplayWorkerOptions,
  histories: typeof recorded,
): Promise<string[]> {
  const failed: string[] = [];
  for await (const { error, workflowId } of Worker.runReplayHistories(options, histories)) {
    if (error !== undefined) failed.push(`${workflowId}: ${String(error)}`);
  }
  return failed;
}

describe('traces', () => {
  it('lead from who starts a run through its workflows to the batches on engines', async () => {
    const harness = await Harness.on(inject('temporalAddress'), 'tracing', traced);
    const world = await World.start(harness);
    const run = await world.infer('traced');
    expect(await run.result()).toMatchObject({ state: 'completed' });
    for (const id of WORKFLOWS_OF_A_RUN) {
      const history = await harness.client.workflow.getHandle(id).fetchHistory();
      recorded.push({ workflowId: id, history });
    }
    await world.reset();
    await harness.close();
    await traced.flush();

    const found = await spans();
    const chain = [
      'StartWorkflow:inferenceWorkflow',
      'RunWorkflow:inferenceWorkflow',
      'StartChildWorkflow:runWorkflow',
      'RunWorkflow:runWorkflow',
      'StartChildWorkflow:rankWorkflow',
      'RunWorkflow:rankWorkflow',
      'StartActivity:generateBatch',
      'RunActivity:generateBatch',
    ].map((name) => found.find((span) => span.name === name));
    expect(chain.map((span) => span?.parent)).toEqual([
      '',
      ...chain.slice(0, -1).map((span) => span?.span),
    ]);
    expect(new Set(chain.map((span) => span?.trace)).size).toBe(1);
    // What looks at something every few seconds is no trace.
    const names = new Set(found.map((span) => span.name));
    expect([...names].filter((name) => /canary|observe|fleetWorkflow/u.test(name))).toEqual([]);
  }, 90_000);

  it('may be turned off while workflows run: what they did with traces replays', async () => {
    expect(recorded).toHaveLength(WORKFLOWS_OF_A_RUN.length);
    const plain = { workflowBundle: { codePath: inject('workflowBundle') } };
    expect(await failedReplays(plain, recorded)).toEqual([]);
  });

  it('may be turned on while workflows run: what they did before replays', async () => {
    const all = keptReleases().flatMap((release) =>
      keptHistories(release).map((name) => readHistory(release, name)),
    );
    const histories = all.map((kept) => {
      const history = History.decode(gunzipSync(Buffer.from(kept.history, 'base64')));
      return { workflowId: kept.workflowId, history };
    });
    const withTraces = { workflowsPath: WORKFLOWS, ...traced.worker };
    expect(await failedReplays(withTraces, histories)).toEqual([]);
    expect(all.length).toBeGreaterThan(20);
  }, 120_000);
});
