import {
  appendFileSync,
  copyFileSync,
  cpSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { execa } from 'execa';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse } from 'yaml';

import type { RunSnapshot } from '../../src/client/snapshot.js';
import { paths } from '../../src/setup/paths.js';
import { parseLines, readLines } from '../e2e/rankflow.js';
import { documentedCommands } from '../support/compose.js';
import { whyNoNamespaces } from '../support/namespace-host.js';
import { attached } from './attach.js';
import { Containers } from './compose/containers.js';
import { loadProject } from './compose/project.js';
import { postgresImage, rankflowImage, temporalImage } from './containers/images.js';
import { SIMULATED } from './engines.js';
import { VERSION, built, missing, prepare } from './server.js';

const TIMEOUT_MS = 1_800_000;
const MODEL = 'SmolLM2-135M-Instruct';
const lacks = [...(await missing()), ...(whyNoNamespaces() === undefined ? [] : ['namespaces'])];
const { failed: noNetcat } = await execa('which', ['nc'], { reject: false });
if (noNetcat) lacks.push('netcat-openbsd');

/** How long the database is away. */
const AWAY_MS = 15_000;

/**
 * `docker-compose.yml` without an engine of containers: each service runs in namespaces of its own with the command,
 * environment, files, user and health check that the file gives it, on Temporal's server and schema tool as built
 * from their module and on Debian's PostgreSQL.
 */
describe.skipIf(lacks.length > 0)('docker-compose.yml', { timeout: TIMEOUT_MS }, () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'rfc-'));
  const data = (name: string): string => path.join(folder, 'data', name);
  let containers: Containers | undefined;
  const all = (): Containers => {
    if (containers === undefined) throw new Error('the containers did not start');
    return containers;
  };
  /** A command of the comment at the top of the file, as it is run in a container. */
  const documented = (part: string): { service: string; words: string[] } => {
    const line = documentedCommands().find((one) => one.includes(part)) ?? '';
    const found = /^docker compose exec (?<service>\S+) (?<command>.*)$/u.exec(line)?.groups;
    const words = (found?.['command'] ?? '').replaceAll('models/NAME', `models/${MODEL}`);
    const engines = part.endsWith(' run') ? SIMULATED : [];
    return { service: found?.['service'] ?? '', words: [...words.split(/\s+/u), ...engines] };
  };

  beforeAll(async () => {
    const { postgres, temporal } = await prepare();
    copyFileSync(
      path.join(paths.packageRoot, 'docker-compose.yml'),
      path.join(folder, 'docker-compose.yml'),
    );
    cpSync(path.join(paths.packageRoot, 'deploy'), path.join(folder, 'deploy'), {
      recursive: true,
    });
    await execa('sh', ['deploy/init.sh', 'cpu', `/data/models/${MODEL}`], { cwd: folder });
    const settings = path.join(folder, '.env');
    writeFileSync(settings, [readFileSync(settings, 'utf8').trim(), ...SIMULATED, ''].join(' '));
    const project = await loadProject(path.join(folder, 'docker-compose.yml'), 'cpu');
    const temporals = await temporalImage(folder, built, VERSION, temporal.command);
    containers = Containers.create(project, folder, {
      postgres: await postgresImage(folder, postgres),
      rankflow: rankflowImage(path.join(paths.models, MODEL)),
      'temporalio/server': temporals,
      'temporalio/admin-tools': temporals,
    });
    await containers.up();
  }, TIMEOUT_MS);
  afterAll(async () => {
    await containers?.down();
    rmSync(folder, { recursive: true, force: true });
  }, TIMEOUT_MS);

  it('is what the reference implementation of the specification takes, for GPUs, too', async () => {
    const { services } = await loadProject(path.join(folder, 'docker-compose.yml'), 'gpu');
    expect(services).toHaveProperty('ray-worker-gpu');
    expect(services).not.toHaveProperty('ray-worker');
  });

  it('comes up whole and healthy, and its jobs may run again', async () => {
    expect(all().names).toHaveLength(10);
    for (const name of ['temporal-schema', 'temporal-namespace']) {
      all().start(name);
      expect(await all().ended(name, 300_000), all().log(name)).toBe(0);
    }
    for (const name of all().names) await all().healthy(name);
    const user = await all().exec('control-worker', ['id', '-u']);
    expect(user.stdout).toBe('1000');
  });

  it('answers every request of the documented run once, in input order', async () => {
    copyFileSync(path.join(paths.packageRoot, 'examples/requests.jsonl'), data('requests.jsonl'));
    const { service, words } = documented('main.js run');
    const run = () => all().exec(service, words);
    const { exitCode, stderr } = await attached(await run(), run);
    expect(exitCode, `${stderr}\n${all().log('python-worker')}`).toBe(0);
    expect(idsOf(data('answers.jsonl'))).toEqual(idsOf(data('requests.jsonl')));
  });

  it('shows Prometheus what it asks for: both workers, Temporal, and the engines that it is told of', async () => {
    const file = path.join(paths.packageRoot, 'deploy/prometheus/compose.yml');
    const { scrape_configs: jobs } = parse(readFileSync(file, 'utf8')) as {
      scrape_configs: {
        static_configs?: { targets: string[] }[];
        http_sd_configs?: { url: string }[];
      }[];
    };
    const get = async (url: string): Promise<string> => {
      const { stdout, failed, stderr } = await all().exec('control-worker', ['curl', '-fsS', url]);
      if (failed) throw new Error(`${url}: ${stderr}`);
      return stdout;
    };
    const fixed = jobs.flatMap(({ static_configs: some = [] }) =>
      some.flatMap(({ targets }) => targets),
    );
    const texts = await Promise.all(fixed.map(async (target) => get(`http://${target}/metrics`)));
    expect(texts[0]).toMatch(/^rankflow_fleets_observed 1$/mu);
    expect(texts[1]).toMatch(/^temporal_request_total/mu);
    expect(texts[2]).toMatch(/^service_requests/mu);
    const url = jobs.flatMap(({ http_sd_configs: some = [] }) => some)[0]?.url ?? '';
    const engines = (JSON.parse(await get(url)) as { targets: string[] }[]).flatMap(
      ({ targets }) => targets,
    );
    expect(engines).toHaveLength(2);
    const own = SIMULATED.length > 0 ? /^temporal_/mu : /^vllm:/mu;
    for (const engine of engines) expect(await get(`http://${engine}/metrics`)).toMatch(own);
  });

  it('serves a batch to a client of OpenAI', async () => {
    const { service, words } = documented('serve keys create');
    const { stdout: apiKey, stderr } = await all().exec(service, words);
    expect(apiKey, stderr).toMatch(/^rf-/u);
    const client = new OpenAI({ baseURL: `http://${all().address('api')}:8000/v1`, apiKey });
    const lines = (readLines(data('requests.jsonl')) as { body: object }[]).slice(0, 4);
    const input = lines.map((line) =>
      JSON.stringify({ ...line, body: { ...line.body, model: MODEL } }),
    );
    writeFileSync(data('batch.jsonl'), input.join('\n'));
    const file = await client.files.create({
      file: new File([input.join('\n')], 'batch.jsonl'),
      purpose: 'batch',
    });
    const made = await client.batches.create({
      ...{ input_file_id: file.id, endpoint: '/v1/chat/completions', completion_window: '24h' },
    });
    let batch = made;
    while (!['completed', 'failed', 'expired', 'cancelled'].includes(batch.status)) {
      await sleep(1000);
      batch = await client.batches.retrieve(made.id);
    }
    expect(batch.status, JSON.stringify(batch.errors)).toBe('completed');
    const answers = await (await client.files.content(batch.output_file_id ?? '')).text();
    expect((parseLines(answers) as { custom_id: string }[]).map((line) => line.custom_id)).toEqual(
      (lines as unknown as { custom_id: string }[]).map((line) => line.custom_id),
    );
  });

  it('finishes a run in whose middle the database is killed and comes back', async () => {
    const text = readFileSync(data('requests.jsonl'), 'utf8');
    writeFileSync(data('twice.jsonl'), text);
    appendFileSync(data('twice.jsonl'), text.replaceAll('"custom_id": "', '"custom_id": "again-'));
    const { service, words } = documented('main.js run');
    const changed = words.map((word) =>
      word.replace('/data/requests', '/data/twice').replace('/data/answers', '/data/twice.out'),
    );
    const start = () =>
      all().exec(service, [...changed, '--json', '--max-tokens', '32', '--batch-rows', '10']);
    const running = start();
    let doneWhenKilled: number | undefined;
    for await (const line of running) {
      const event = JSON.parse(line) as { event: string } & RunSnapshot;
      if (doneWhenKilled !== undefined || event.event !== 'progress' || event.doneRows < 20)
        continue;
      doneWhenKilled = event.doneRows;
      all().kill('postgresql');
      await all().ended('postgresql', 10_000);
      await sleep(AWAY_MS);
      all().start('postgresql');
    }
    const { exitCode, stderr } = await attached(await running, start);
    expect(exitCode, `${stderr}\n${all().log('temporal')}`).toBe(0);
    expect(doneWhenKilled).toBeLessThan(idsOf(data('twice.jsonl')).length);
    expect(idsOf(data('twice.out.jsonl'))).toEqual(idsOf(data('twice.jsonl')));
    for (const name of all().names) if (!name.endsWith('-schema')) await all().healthy(name);
  });

  it("ends the Python worker's container with its Ray node, and it starts again", async () => {
    const name = 'python-worker';
    const { stdout } = await all().exec(name, ['pgrep', '-x', 'raylet']);
    const ended = all().ended(name, 300_000);
    await all().exec(name, ['kill', '-KILL', stdout.trim()]);
    expect(await ended, all().log(name)).toBe(1);
    await all().startedAgain(name);
    await all().healthy(name);
  });
});

const idsOf = (file: string): string[] =>
  (readLines(file) as { custom_id: string }[]).map((line) => line.custom_id);
