import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { RunSnapshot } from '../../src/client/snapshot.js';
import { paths } from '../../src/setup/paths.js';
import { parseLines } from '../e2e/rankflow.js';
import { type BucketServer, startBucketServer } from '../support/bucket-server.js';
import { MANIFESTS, Manifest, madeBy } from '../support/manifests.js';
import { whyNoNamespaces } from '../support/namespace-host.js';
import { attached } from './attach.js';
import { postgresImage, rankflowImage, temporalImage } from './containers/images.js';
import { SIMULATED } from './engines.js';
import { Cluster } from './kubernetes/cluster.js';
import { rayObjects } from './kubernetes/tools.js';
import { VERSION, built, missing, prepare } from './server.js';

const TIMEOUT_MS = 1_800_000;
const MODEL = '/data/models/SmolLM2-135M-Instruct';
const BUCKET = 'answers';
const lacks = [...(await missing()), ...(whyNoNamespaces() === undefined ? [] : ['namespaces'])];
const WITHOUT = lacks.length > 0 ? ` (needs ${lacks.join(', ')})` : '';

/**
 * The manifests without a Kubernetes: each pod runs in namespaces of its own, with the commands, environments, secrets,
 * volumes, users and probes that they give it. What KubeRay makes of the `RayCluster` is made by its own code; Temporal's
 * server and schema tool are built from their module, PostgreSQL is Debian's, the bucket is moto's.
 */
describe.skipIf(lacks.length > 0)(`Kubernetes${WITHOUT}`, { timeout: TIMEOUT_MS }, () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'rfk-'));
  const manifests = MANIFESTS.map((file) => Manifest.read(file));
  const commands = manifests.flatMap((manifest) => manifest.commands);
  const requests = readFileSync(path.join(paths.packageRoot, 'examples/requests.jsonl'), 'utf8');
  let cluster: Cluster | undefined;
  let bucket: BucketServer | undefined;
  const all = (): Cluster => {
    if (cluster === undefined) throw new Error('the cluster did not start');
    return cluster;
  };
  const store = (): BucketServer => {
    if (bucket === undefined) throw new Error('the bucket did not start');
    return bucket;
  };
  /** A documented `kubectl exec`, with this bucket and model. */
  const documented = (part: string): { deployment: string; words: string[] } => {
    const line = commands.find((one) => one.includes(part)) ?? '';
    const found = / exec deploy\/(?<name>\S+) -- (?<command>.*)$/u.exec(line)?.groups;
    const words = (found?.['command'] ?? '').replaceAll('BUCKET', BUCKET).split(/\s+/u);
    return {
      deployment: found?.['name'] ?? '',
      words: words.map((word) => (word === 'ORG/NAME' ? MODEL : word)),
    };
  };
  const answersOf = async (run: string) => {
    const words = [
      'node',
      'dist/cli/main.js',
      'results',
      run,
      '--store',
      `s3://${BUCKET}/rankflow`,
    ];
    const { stdout, stderr, failed } = await all().exec('rankflow-control', words);
    if (failed) throw new Error(stderr);
    return idsOf(stdout);
  };

  beforeAll(async () => {
    const { postgres, temporal } = await prepare();
    const text = manifests.map((manifest) => manifest.text).join('\n---\n');
    writeFileSync(path.join(folder, 'all.yaml'), text);
    const temporals = await temporalImage(folder, built, VERSION, temporal.command);
    const made = madeBy(commands);
    const keys: Readonly<Record<string, string>> = {
      AWS_ACCESS_KEY_ID: 'test',
      AWS_SECRET_ACCESS_KEY: 'test',
    };
    const secrets = made.filter(
      ({ kind, name }) => kind === 'secret' && name !== 'rankflow-temporal',
    );
    cluster = Cluster.create({
      folder,
      manifests: MANIFESTS.map((file) => withModel(Manifest.read(file))),
      ray: await rayObjects(path.join(folder, 'all.yaml')),
      images: {
        postgres: await postgresImage(folder, postgres),
        'registry.example.com/rankflow': rankflowImage(
          path.join(paths.models, path.basename(MODEL)),
        ),
        'temporalio/server': temporals,
        'temporalio/admin-tools': temporals,
      },
      secrets: new Map(
        secrets.map(({ name, literals }) => [
          name,
          Object.fromEntries(
            Object.keys(literals).map((key) => [key, keys[key] ?? randomBytes(32).toString('hex')]),
          ),
        ]),
      ),
      configMaps: new Map(
        made.flatMap(({ name, folder: from }) =>
          from === undefined ? [] : [[name, filesOf(path.join(paths.packageRoot, from))] as const],
        ),
      ),
      more: { api: SIMULATED },
      spares: 1,
    });
    bucket = await startBucketServer(BUCKET, cluster.gateway);
    const { AWS_ENDPOINT = '', AWS_ALLOW_HTTP = '' } = bucket.env;
    await bucket.put('requests.jsonl', requests);
    await cluster.up({ AWS_ENDPOINT, AWS_ALLOW_HTTP });
  }, TIMEOUT_MS);
  afterAll(async () => {
    await cluster?.down();
    await bucket?.close();
    rmSync(folder, { recursive: true, force: true });
  }, TIMEOUT_MS);

  it('comes up whole, and every probe is answered', async () => {
    expect(all().names.toSorted()).toEqual([
      ...['rankflow-api-0', 'rankflow-control-0', 'rankflow-control-1'],
      ...['rankflow-engines-worker-0', 'rankflow-engines-worker-1', 'rankflow-head-0'],
      ...['temporal-0', 'temporal-namespace-0', 'temporal-postgresql-0'],
    ]);
    const { asked, wrong } = await all().probeAll();
    expect(wrong).toEqual([]);
    // Three of each container that stays, but two of Ray's, for which KubeRay has no third.
    expect(asked).toBe(3 * 6 + 2 * 3);
    for (const [deployment, container] of [
      ['rankflow-control', 'control-worker'],
      ['rankflow-head', 'python-worker'],
    ] as const) {
      const { stdout } = await all().exec(deployment, ['id', '-u'], container);
      expect(stdout).toBe('1000');
    }
  });

  it('answers every request of the documented run once, in input order, into the bucket', async () => {
    const { deployment, words } = documented('main.js run');
    const run = () => all().exec(deployment, [...words, '--run-id', 'whole', ...SIMULATED]);
    const { exitCode, stderr } = await attached(await run(), run);
    expect(exitCode, `${stderr}\n${all().log('rankflow-head-0')}`).toBe(0);
    expect(await answersOf('whole')).toEqual(idsOf(requests));
  });

  it('finishes a run in whose middle a pod with an engine is taken away and replaced', async () => {
    const twice = requests + requests.replaceAll('"custom_id": "', '"custom_id": "again-');
    await store().put('twice.jsonl', twice);
    const { deployment, words } = documented('main.js run');
    const changed = words.map((word) => word.replace('requests.jsonl', 'twice.jsonl'));
    const start = () =>
      all().exec(deployment, [
        ...[...changed, '--run-id', 'twice', '--json', '--batch-rows', '10'],
        ...['--max-tokens', '32', ...SIMULATED],
      ]);
    const running = start();
    const name = 'rankflow-engines-worker-0';
    let taken: ReturnType<Cluster['delete']> | undefined;
    let replaced: Promise<string> | undefined;
    let doneWhenTaken: number | undefined;
    for await (const line of running) {
      const event = JSON.parse(line) as { event: string } & RunSnapshot;
      if (taken !== undefined || event.event !== 'progress' || event.doneRows < 20) continue;
      doneWhenTaken = event.doneRows;
      taken = all().delete(name);
      replaced = all().replace(name);
    }
    const { exitCode, stderr } = await attached(await running, start);
    expect(exitCode, `${stderr}\n${all().log('rankflow-head-0')}`).toBe(0);
    expect(doneWhenTaken).toBeLessThan(idsOf(twice).length);
    expect(await answersOf('twice')).toEqual(idsOf(twice));
    expect(await replaced).toBe('rankflow-engines-worker-2');
    const { seconds, codes } = (await taken) ?? { seconds: Number.NaN, codes: [] };
    // It drained and ended by itself, in the time that its pod has; Ray then exits with 1.
    expect(codes, all().log(name)).toEqual([1]);
    expect(all().log(name)).toContain('finished draining');
    expect(seconds).toBeLessThan(60);
  });

  it('serves a batch to a client of OpenAI', async () => {
    const { deployment, words } = documented('serve keys create');
    const { stdout: apiKey, stderr } = await all().exec(deployment, words);
    expect(apiKey, stderr).toMatch(/^rf-/u);
    const baseURL = `http://${all().address('rankflow-api')}:8000/v1`;
    const client = new OpenAI({ baseURL, apiKey });
    const lines = (parseLines(requests) as { body: object }[]).slice(0, 4);
    const input = lines.map((line) =>
      JSON.stringify({ ...line, body: { ...line.body, model: path.basename(MODEL) } }),
    );
    const { id } = await client.files.create({
      file: new File([input.join('\n')], 'batch.jsonl'),
      purpose: 'batch',
    });
    let batch = await client.batches.create({
      ...{ input_file_id: id, endpoint: '/v1/chat/completions', completion_window: '24h' },
    });
    while (!['completed', 'failed', 'expired', 'cancelled'].includes(batch.status)) {
      await sleep(1000);
      batch = await client.batches.retrieve(batch.id);
    }
    expect(batch.status, JSON.stringify(batch.errors)).toBe('completed');
    const answers = await (await client.files.content(batch.output_file_id ?? '')).text();
    expect(idsOf(answers)).toEqual(idsOf(input.join('\n')));
  });
});

const idsOf = (text: string): string[] =>
  (parseLines(text) as { custom_id: string }[]).map((line) => line.custom_id);

/** With the model that is here. */
const withModel = ({ text }: Manifest): Manifest =>
  new Manifest(text.replaceAll('--model=ORG/NAME', `--model=${MODEL}`));

const filesOf = (folder: string): Record<string, string> =>
  Object.fromEntries(
    readdirSync(folder).map((name) => [name, readFileSync(path.join(folder, name), 'utf8')]),
  );
