import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';

import type { Engine } from '../lab/engines.js';
import type { Home } from '../lab/home.js';
import type { Stack } from '../lab/stack.js';
import { poll, processesOf, sharedMemoryOf, sleep } from '../lab/processes.js';
import { type ManifestDocument, type PlanDocument, parse } from '../store/documents.js';
import type { StoreReader } from '../store/reader.js';
import type { Violation } from './violation.js';

/** Processes that were told to end get this long: an engine that is being killed takes some seconds. */
const GRACE_S = 20;

/**
 * Keeps track of the shared memory that the processes of a data folder use: on a machine where others work too,
 * only this tells whose a file in `/dev/shm` is.
 */
export class SharedMemory {
  readonly #seen = new Set<string>();
  #stopped = false;
  readonly #looking: Promise<void>;

  constructor(home: Home) {
    this.#looking = this.#look(home);
  }

  async #look(home: Home): Promise<void> {
    while (!this.#stopped) {
      for (const { pid } of processesOf(home.folder)) {
        for (const file of sharedMemoryOf(pid)) this.#seen.add(file.replace(/ \(deleted\)$/u, ''));
      }
      await sleep(5000);
    }
  }

  /** The files that are still there. */
  async left(): Promise<string[]> {
    this.#stopped = true;
    await this.#looking;
    return [...this.#seen].filter((file) => existsSync(file));
  }
}

/** Actors and the processes of vLLM, by the titles that they give themselves. */
const OF_AN_ENGINE = /^(?:ray::EngineActor|VLLM::)/u;

/**
 * I4 while clusters and fleets are still up, where what takes them down has not hidden it: no process is left of engines
 * that were replaced.
 *
 * @param engines those that are in use
 * @param graceSeconds for those that were told to end just now
 */
export async function checkOrphans(
  home: Home,
  engines: () => Promise<readonly Engine[]>,
  graceSeconds = GRACE_S,
): Promise<Violation[]> {
  const look = async (): Promise<Violation[]> => {
    const groups = new Set((await engines()).map(({ pid }) => pid));
    const orphans = processesOf(home.folder).filter(
      ({ command, group }) => OF_AN_ENGINE.test(command) && !groups.has(group),
    );
    return orphans.map(({ pid, command }) => ({
      invariant: 'I4',
      code: 'orphan',
      message: `pid ${pid} (${command}) is of no engine in use`,
    }));
  };
  // Whoever has just been told to end has its time.
  const none = await poll(
    async () => ((await look()).length === 0 ? true : undefined),
    graceSeconds,
    1000,
  );
  return none === true ? [] : look();
}

/** I4: after everything was taken down nothing of it is left but logs and the store. */
export async function checkLeftovers(
  stack: Stack,
  memory: SharedMemory,
  clusters: readonly string[],
  stores: readonly StoreReader[],
): Promise<Violation[]> {
  const { home } = stack;
  const violations: Violation[] = [];
  const report = (code: string, message: string): void => {
    violations.push({ invariant: 'I4', code, message });
  };
  await poll(() => (processesOf(home.folder).length === 0 ? true : undefined), GRACE_S, 500);
  for (const { pid, command } of processesOf(home.folder)) {
    // Listening ports and actors end with their processes.
    report('process', `pid ${pid} still runs: ${command.slice(0, 120)}`);
  }
  for (const file of await memory.left()) report('shared-memory', `${file} is still there`);
  for (const cluster of clusters) {
    if (existsSync(home.file('clusters', cluster, 'token'))) {
      report('token', `the token of cluster ${cluster} is still there`);
    }
    const folder = stack.sessionFolder(cluster);
    if (existsSync(folder)) report('temporary-folder', `${folder} is still there`);
  }
  for (const name of readdirSync(home.temporary)) {
    if (!KEPT.test(name)) report('temporary-file', `${home.temporary}/${name} is still there`);
  }
  for (const store of stores) violations.push(...(await litterOf(store)));
  return violations;
}

/** What makes the next engine quicker, and what one waits for on a shared card, stays with the host. */
const KEPT = /^(?:torchinductor|rankflow-device-)/u;

/**
 * I4 of a store: files that never became whole, and files of planners and finalizers that nobody reads. Those of
 * a run that was given up before it was planned or finished stay until it is started again.
 */
export async function litterOf(store: StoreReader): Promise<Violation[]> {
  const files = (await store.list('runs')).map(({ key }) => key);
  const report = (code: string, file: string): Violation => {
    return { invariant: 'I4', code, message: `${file} is still there` };
  };
  const temporary = files.filter((file) => path.basename(file).startsWith('.tmp-'));
  const unread: string[] = [];
  for (const run of new Set(files.map((file) => file.split('/')[1] ?? ''))) {
    const plan = (await documentOf(store, run, 'plan.json')) as PlanDocument | undefined;
    const manifest = (await documentOf(store, run, 'manifest.json')) as
      ManifestDocument | undefined;
    if (plan === undefined || manifest === undefined) continue;
    const read = new Set([manifest.output.path, manifest.errors.path]);
    unread.push(
      ...files.filter(
        (file) =>
          (file.startsWith(`runs/${run}/final/`) && !read.has(file)) ||
          (file.startsWith(`runs/${run}/plan/`) &&
            !file.startsWith(`runs/${run}/plan/${plan.token}/`)),
      ),
    );
  }
  return [
    ...temporary.map((file) => report('temporary-file', file)),
    ...unread
      .filter((file) => !temporary.includes(file))
      .map((file) => report('unread-file', file)),
  ];
}

async function documentOf(
  store: StoreReader,
  run: string,
  name: string,
): Promise<object | undefined> {
  const data = await store.read(`runs/${run}/${name}`);
  return data && parse(data);
}
