import path from 'node:path';
import { inspect } from 'node:util';

import { Client, Connection } from '@temporalio/client';
import { DefaultLogger, NativeConnection, Runtime, Worker } from '@temporalio/worker';
import { inject } from 'vitest';

import { paths } from '../../src/setup/paths.js';
import type { Tracing } from '../../src/tracing/index.js';
import { CONTROL_QUEUE, DEPLOYMENT } from '../../src/contracts/names.js';
import { BEGUN_AGAIN } from '../../src/workers/begun-again.js';
import type { NAMESPACES } from './temporal-server.js';

type Activities = object;

/** A build of the control worker: its id, and the file with its workflows. */
export interface ServedBuild {
  readonly id: string;
  readonly codePath: string;
}

export const WORKFLOWS = path.join(paths.packageRoot, 'src/workflows/index.ts');

/** A client of the test server, and workers that end with the test file. */
export class Harness {
  readonly #workers: { readonly worker: Worker; readonly done: Promise<void> }[] = [];

  private constructor(
    readonly client: Client,
    private readonly native: NativeConnection,
    private readonly namespace: string,
    private readonly traced?: Tracing,
  ) {}

  static async start(namespace: (typeof NAMESPACES)[number]): Promise<Harness> {
    Runtime.install({ logger: new DefaultLogger('ERROR') });
    return Harness.on(inject('temporalAddress'), namespace);
  }

  /** Another one, on a server of the test's own, with traces or without. */
  static async on(address: string, namespace: string, traced?: Tracing): Promise<Harness> {
    const connection = await Connection.connect({ address });
    const native = await NativeConnection.connect({ address });
    const interceptors = traced && { interceptors: traced.client };
    const client = new Client({ connection, namespace, ...interceptors });
    return new Harness(client, native, namespace, traced);
  }

  /** Serves activities on a queue; on the control queue all workflows too, as a build or unversioned. */
  async serve(
    taskQueue: string,
    activities: Activities,
    concurrency = 20,
    build?: ServedBuild,
    codePath = build?.codePath ?? inject('workflowBundle'),
  ): Promise<Worker> {
    const worker = await Worker.create({
      connection: this.native,
      namespace: this.namespace,
      taskQueue,
      activities,
      maxConcurrentActivityTaskExecutions: concurrency,
      workflowFailureErrorTypes: BEGUN_AGAIN,
      // Cancellations arrive with the answer to a heartbeat.
      maxHeartbeatThrottleInterval: 200,
      defaultHeartbeatThrottleInterval: 200,
      shutdownGraceTime: '100 ms',
      shutdownForceTime: '2 seconds',
      ...this.traced?.worker,
      ...(taskQueue === CONTROL_QUEUE &&
        (this.traced ? { workflowsPath: WORKFLOWS } : { workflowBundle: { codePath } })),
      ...(build && {
        workerDeploymentOptions: {
          version: { deploymentName: DEPLOYMENT, buildId: build.id },
          useWorkerVersioning: true,
          defaultVersioningBehavior: 'PINNED',
        },
      }),
    });
    this.#workers.push({ worker, done: worker.run() });
    return worker;
  }

  /** Ends one worker and waits for it, as when an engine is lost. */
  async end(worker: Worker): Promise<void> {
    const index = this.#workers.findIndex((entry) => entry.worker === worker);
    const [entry] = this.#workers.splice(index, 1);
    if (worker.getState() === 'RUNNING') worker.shutdown();
    await entry?.done;
  }

  async close(): Promise<void> {
    for (const { worker } of [...this.#workers]) await this.end(worker);
    await this.client.connection.close();
    await this.native.close();
  }
}

/** Milliseconds between two looks. */
const LOOK_MS = 100;
const LOOK_AT_MOST_MS = 3_000;

/** Polls until `check` returns something; fails after `seconds`, with what `state` says then. */
export async function eventually<T>(
  check: () => T | undefined | false | Promise<T | undefined | false>,
  seconds = 20,
  state?: () => unknown,
): Promise<T> {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const began = Date.now();
    const found = await check();
    if (found !== undefined && found !== false) return found;
    if (Date.now() > deadline) {
      const seen = state === undefined ? '' : `\n${inspect(await state(), { depth: 6 })}`;
      throw new Error(`did not happen within ${seconds} s: ${String(check)}${seen}`);
    }
    // What asks by a process of its own, which a busy machine takes seconds for, leaves it time for something else.
    const pause = Math.min(Math.max(LOOK_MS, Date.now() - began), LOOK_AT_MOST_MS);
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}
