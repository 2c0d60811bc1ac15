import { once } from 'node:events';
import { readdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { Client, Connection } from '@temporalio/client';
import proto from '@temporalio/proto';
import { execa } from 'execa';
import { afterAll, expect, inject, it } from 'vitest';

import type { ClusterStatus } from '../../src/contracts/workflows.js';
import { paths } from '../../src/setup/paths.js';
import { Certificates } from '../support/certificates.js';
import { type Front, tlsFront } from '../support/tls-front.js';
import { DataFolder, parseLines } from './rankflow.js';

/** Real command line, workers, Ray; simulated engines. Temporal is behind mutual TLS, and all payloads are encrypted. */
const FLEET = 'secure';
const NAMESPACE = 'secure';
const CANARY = 'canary-41d7c2';
const ROWS = 12;
/** Secrets that processes have in their environment, whether this run needs them or not. */
const VARIABLES = {
  TEMPORAL_API_KEY: 'api-key-canary-b1946ac9',
  AWS_SECRET_ACCESS_KEY: 'bucket-canary-2d711642',
  HOOK_KEY: 'webhook-canary-a3c65c29',
};

const environment: Record<string, string> = {};
const data = new DataFolder(environment);
const home = realpathSync(data.home);
let front: Front | undefined;
let raw: Client | undefined;
afterAll(async () => {
  await data.remove(FLEET);
  await raw?.connection.close();
  await front?.close();
});

/** Command lines of all processes that there are now. */
function commandLines(): string {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/u.test(name))
    .map((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
      } catch {
        return '';
      }
    })
    .join('\n');
}

/** What no codec is asked about: attributes to search by, and the marks that the SDK itself leaves. */
const IN_THE_CLEAR = ['searchAttributes', 'markerRecordedEventAttributes'];

/** How the payloads in a part of a history are encoded, but for those that are never encrypted. */
function encodingsIn(part: unknown): string[] {
  if (typeof part !== 'object' || part === null || part instanceof Uint8Array) return [];
  const encoding = (part as proto.temporal.api.common.v1.IPayload).metadata?.['encoding'];
  if (encoding instanceof Uint8Array) return [Buffer.from(encoding).toString()];
  return Object.entries(part).flatMap(([name, inner]) =>
    IN_THE_CLEAR.includes(name) ? [] : encodingsIn(inner),
  );
}

/** Everything of the histories of a namespace, as it is kept. */
async function histories(
  client: Client,
): Promise<{ ids: string[]; text: string; encodings: Set<string> }> {
  const { History } = proto.temporal.api.history.v1;
  const ids: string[] = [];
  const parts: string[] = [];
  const encodings = new Set<string>();
  const executions = await client.workflowService.listWorkflowExecutions({ namespace: NAMESPACE });
  for (const { execution = null } of executions.executions ?? []) {
    const handle = client.workflow.getHandle(execution?.workflowId ?? '', execution?.runId ?? '');
    ids.push(handle.workflowId);
    const history = await handle.fetchHistory();
    parts.push(Buffer.from(History.encode(history).finish()).toString('latin1'));
    for (const encoding of encodingsIn(history.events)) encodings.add(encoding);
    // Not by the handle, which would decode the memo.
    const described = await client.workflowService.describeWorkflowExecution({
      namespace: NAMESPACE,
      execution,
    });
    const { DescribeWorkflowExecutionResponse: Described } = proto.temporal.api.workflowservice.v1;
    parts.push(Buffer.from(Described.encode(described).finish()).toString('latin1'));
  }
  return { ids, text: parts.join('\n'), encodings };
}

/** What Ray's dashboard tells everybody who has its token: actors with their environments, jobs, nodes. */
async function rayTells(dashboard: string, token: string): Promise<string> {
  const pages = ['/api/v0/actors?detail=true', '/api/v0/runtime_envs?detail=true', '/api/jobs/'];
  const answers = pages.map(async (page) => {
    const answer = await fetch(`${dashboard}${page}`, {
      headers: { authorization: `Bearer ${token}` },
    });
    return `${answer.status} ${await answer.text()}`;
  });
  return (await Promise.all(answers)).join('\n');
}

it(
  'a whole run over mutual TLS leaves nothing in the clear, and no secret anywhere that is looked at',
  { timeout: 420_000 },
  async () => {
    const made = new Certificates(data.file('tls'));
    const authority = made.authority('authority');
    const clients = made.authority('clients');
    const client = made.signed('client', clients, 'client');
    front = await tlsFront(
      inject('temporalAddress'),
      made.signed('server', authority, 'localhost'),
      clients,
    );
    Object.assign(environment, {
      TEMPORAL_ADDRESS: `localhost:${front.port}`,
      TEMPORAL_NAMESPACE: NAMESPACE,
      TEMPORAL_TLS_SERVER_CA_CERT_PATH: authority.cert,
      TEMPORAL_TLS_CLIENT_CERT_PATH: client.cert,
      TEMPORAL_TLS_CLIENT_KEY_PATH: client.key,
      RANKFLOW_ENCRYPTION_KEY_FILE: data.file('payload-keys'),
      RANKFLOW_ALLOWED_ROOTS: home,
      ...VARIABLES,
    });
    const key = await data.rankflow(['codec-server', 'key', data.file('payload-keys')]);
    expect(key.exitCode, key.stderr).toBe(0);
    const requests = path.join(home, `${CANARY}.jsonl`);
    const rows = Array.from({ length: ROWS }, (_, row) =>
      JSON.stringify({ custom_id: `row-${row}`, prompt: `Name ${CANARY}, ${row}.` }),
    );
    writeFileSync(requests, `${rows.join('\n')}\n`);

    const run = await data.rankflow(
      [
        ...['run', requests, '--run-id', 'secured', '--model', 'made-up', '--backend', 'simulated'],
        ...['--fleet', FLEET, '--keep', '--batch-rows', '4', '--json'],
      ],
      300_000,
    );
    expect(run.exitCode, run.stderr).toBe(0);
    const { stdout } = await data.rankflow(['results', 'secured']);
    expect(parseLines(stdout)).toHaveLength(ROWS);

    // Past the front, as whoever runs the server sees it.
    const connection = await Connection.connect({ address: inject('temporalAddress') });
    raw = new Client({ connection, namespace: NAMESPACE });
    const kept = await histories(raw);
    expect(kept.ids).toEqual(expect.arrayContaining(['inference/secured', 'run/secured']));
    expect(kept.encodings).toEqual(new Set(['binary/encrypted']));
    expect(kept.text).not.toContain(CANARY);

    const status = await data.rankflow(['cluster', 'status', 'local', '--json']);
    const { address } = JSON.parse(status.stdout) as ClusterStatus;
    const token = readFileSync(address?.tokenFile ?? '', 'utf8').trim();
    const seen = {
      histories: kept.text,
      arguments: commandLines(),
      ray: await rayTells(address?.dashboardUrl ?? '', token),
    };
    expect(seen.ray).toContain('EngineActor');
    expect(seen.arguments).toContain('rankflow.worker');
    const secrets = {
      ...VARIABLES,
      'Ray token': token,
      'TLS key': readFileSync(client.key, 'utf8').split('\n')[1] ?? '',
      'encryption key': readFileSync(data.file('payload-keys'), 'utf8').trim().split(' ')[1] ?? '',
    };
    for (const [place, text] of Object.entries(seen)) {
      for (const [name, secret] of Object.entries(secrets)) {
        expect(secret.length, name).toBeGreaterThan(16);
        expect(text.includes(secret), `${name} in ${place}`).toBe(false);
      }
    }

    // Others are refused, each in one way.
    const other = async (args: readonly string[], changed: Readonly<Record<string, string>>) => {
      const before = { ...environment };
      Object.assign(environment, changed);
      const { exitCode, stderr } = await data.rankflow(args);
      Object.assign(environment, before);
      return { exitCode, stderr };
    };
    const stranger = made.signed('stranger', authority, 'client');
    const { cert, key: keyOfStranger } = stranger;
    expect(
      await other(['cancel', 'secured'], {
        TEMPORAL_TLS_CLIENT_CERT_PATH: cert,
        TEMPORAL_TLS_CLIENT_KEY_PATH: keyOfStranger,
      }),
    ).toMatchObject({
      exitCode: 3,
      stderr: expect.stringContaining('refuses the client certificate'),
    });
    expect(await other(['list'], { RANKFLOW_ENCRYPTION_KEY_FILE: '' })).toMatchObject({
      exitCode: 2,
      stderr: expect.stringContaining('this process has no keys'),
    });
    expect(
      await other(['submit', '/etc/hosts', '--model', 'made-up', '--backend', 'simulated'], {}),
    ).toMatchObject({ exitCode: 2, stderr: expect.stringContaining(`(${home})`) });
    await decodes(raw);
  },
);

/** The codec server, as Temporal's web interface asks it. */
async function decodes(client: Client): Promise<void> {
  const { events } = await client.workflow.getHandle('inference/secured').fetchHistory();
  const [payload] = events?.[0]?.workflowExecutionStartedEventAttributes?.input?.payloads ?? [];
  const base64 = (value: Uint8Array | null | undefined): string =>
    Buffer.from(value ?? []).toString('base64');
  const cli = path.join(paths.packageRoot, 'dist/cli/main.js');
  const server = execa(process.execPath, [cli, 'codec-server', '--port', '0', '--no-auth'], {
    env: { RANKFLOW_HOME: data.home, ...environment },
    reject: false,
  });
  try {
    const [printed] = (await once(server.stdout, 'data')) as [Buffer];
    const answer = await fetch(`${printed.toString().trim()}/decode`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({
        payloads: [
          {
            metadata: Object.fromEntries(
              Object.entries(payload?.metadata ?? {}).map(([name, value]) => [name, base64(value)]),
            ),
            data: base64(payload?.data),
          },
        ],
      }),
    });
    const { payloads } = (await answer.json()) as { payloads: [{ data: string }] };
    expect(Buffer.from(payloads[0].data, 'base64').toString()).toContain(CANARY);
  } finally {
    server.kill('SIGTERM');
    await server;
  }
}
