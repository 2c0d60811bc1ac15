/**
 * Whether the workflow of a large fleet stays responsive: engines that are pollers and nothing else, 100 to a process.
 *
 *     node bench/many-engines.js --engines 100,1000 --json result.json
 *
 * Real: Temporal, the fleet's workflow, a poller on each engine's own queue that answers its canaries. Stand-ins: Ray
 * (a table of actors) and what an engine generates. Of each size: seconds until every engine has answered, and of
 * `--rounds` changes of the size (one engine less, one more) and as many status queries the median and the slowest
 * answer; events and bytes of the largest history. Prints a table in Markdown.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { Client, Connection, WithStartWorkflowOperation } from '@temporalio/client';
import { DefaultLogger, NativeConnection, Runtime, Worker } from '@temporalio/worker';
import { execa } from 'execa';
import getPort from 'get-port';

import {
  CONTROL_QUEUE,
  PYTHON_QUEUE,
  QUERY,
  UPDATE,
  WORKFLOW,
  engineQueue,
  fleetWorkflowId,
} from '../dist/contracts/names.js';
import { findTemporal } from '../dist/setup/temporal.js';

const { values } = parseArgs({
  options: {
    engines: { type: 'string', default: '100,1000' },
    rounds: { type: 'string', default: '20' },
    json: { type: 'string' },
  },
});
const rounds = Number(values.rounds);

const NODE = { nodeId: 'node-0000', name: 'node', ip: '127.0.0.1', head: true, alive: true };
/** One engine asks for this much of the node. */
const MODEL = { model: 'stand-in', backend: 'simulated', cpusPerEngine: 1, gpusPerEngine: 0 };

/** More workers of Temporal's SDK in one process end Node.js: its stack of asynchronous calls breaks. */
const PER_PROCESS = 100;

/** A process of pollers: `tell` ends when it has done what it was told. */
class Pollers {
  #waiting = new Map();
  #number = 0;

  constructor(address) {
    this.process = fork(fileURLToPath(new URL('pollers.js', import.meta.url)), [address]);
    this.ready = once(this.process, 'message');
    this.process.on('message', ({ number }) => this.#waiting.get(number)?.());
  }

  async tell(what, taskQueue) {
    await this.ready;
    const number = (this.#number += 1);
    const done = new Promise((resolve) => this.#waiting.set(number, resolve));
    this.process.send({ number, what, taskQueue });
    await done;
  }

  end() {
    this.process.disconnect();
  }
}

/** Stands in for Ray: actors are table entries with a poller each. */
class Actors {
  #actors = new Map();
  #processes = [];
  #pid = 1000;

  constructor(address, most) {
    this.address = address;
    // Room for one more than the fleet has.
    this.nodes = [{ ...NODE, cpus: most + 1, gpus: 0 }];
  }

  observe = async () => ({
    reachable: true,
    nodes: this.nodes,
    engines: [...this.#actors.values()].map(({ observed }) => observed),
  });

  execute = async ({ fleet, start, stop, restart }) => {
    await Promise.all(start.map(async (slot) => this.#place(fleet, slot)));
    await Promise.all(stop.map(async (slot) => this.#remove(slot)));
    return { started: start, stopped: stop, restarted: restart };
  };

  close() {
    for (const one of this.#processes) one.end();
  }

  async #place(fleet, slot) {
    const incarnation = `${NODE.nodeId.slice(0, 8)}-${(this.#pid += 1)}`;
    const queue = engineQueue(fleet.name, fleet.specHash, slot, incarnation);
    const pollers = (this.#processes[Math.floor(slot / PER_PROCESS)] ??= new Pollers(this.address));
    await pollers.tell('start', queue);
    const { nodeId } = NODE;
    const observed = { slot, actorState: 'ALIVE', incarnation, nodeId, restarts: 0 };
    this.#actors.set(slot, { observed, end: async () => pollers.tell('end', queue) });
  }

  async #remove(slot) {
    const actor = this.#actors.get(slot);
    this.#actors.delete(slot);
    await actor?.end();
  }
}

/** A worker that can be ended. */
async function serve(connection, taskQueue, activities, more = {}) {
  const worker = await Worker.create({ connection, taskQueue, activities, ...more });
  const done = worker.run();
  return {
    end: async () => {
      worker.shutdown();
      await done;
    },
  };
}

const sorted = (times) => times.toSorted((a, b) => a - b);
const summary = (times) => ({
  medianMs: Math.round(sorted(times)[Math.floor(times.length / 2)]),
  slowestMs: Math.round(Math.max(...times)),
});

async function timed(work) {
  const begun = performance.now();
  await work();
  return performance.now() - begun;
}

async function measure(client, connection, address, engines) {
  const actors = new Actors(address, engines);
  const workers = [
    await serve(
      connection,
      CONTROL_QUEUE,
      { observeFleet: actors.observe },
      {
        // As the control worker has it.
        isolateExecutionTimeout: '30 seconds',
        workflowsPath: fileURLToPath(new URL('../dist/workflows/index.js', import.meta.url)),
      },
    ),
    await serve(connection, PYTHON_QUEUE, { executeFleetPlan: actors.execute }),
  ];
  const name = `many-${engines}`;
  const cluster = { name: 'stand-in', address: '127.0.0.1:1', dashboardUrl: 'http://127.0.0.1:1' };
  const spec = {
    name,
    cluster,
    model: MODEL,
    specHash: '0'.repeat(64),
    engines,
    maxConcurrentBatches: 2,
  };
  const workflowId = fleetWorkflowId(name);
  const startWorkflowOperation = new WithStartWorkflowOperation(WORKFLOW.fleet, {
    workflowId,
    taskQueue: CONTROL_QUEUE,
    args: [{ spec }],
    workflowIdConflictPolicy: 'FAIL',
  });
  try {
    const readyMs = await timed(async () =>
      client.workflow.executeUpdateWithStart(UPDATE.ensureFleet, {
        args: [{ spec }],
        startWorkflowOperation,
      }),
    );
    const fleet = client.workflow.getHandle(workflowId);
    const scaled = [];
    const asked = [];
    for (let round = 0; round < rounds; round += 1) {
      const size = round % 2 === 0 ? engines - 1 : engines;
      scaled.push(
        await timed(async () =>
          fleet.executeUpdate(UPDATE.scaleFleet, { args: [{ engines: size }] }),
        ),
      );
      asked.push(await timed(async () => fleet.query(QUERY.status)));
    }
    const { historyLength, historySize } = await fleet.describe();
    await fleet.executeUpdate(UPDATE.stopFleet, { args: [{}] });
    return {
      engines,
      readySeconds: Math.round(readyMs / 100) / 10,
      scale: summary(scaled),
      query: summary(asked),
      events: historyLength,
      historyBytes: historySize,
      residentMegabytes: Math.round(process.memoryUsage.rss() / 1e6),
    };
  } finally {
    actors.close();
    for (const worker of workers) await worker.end();
  }
}

function table(results) {
  const head =
    '| engines | ready after s | scale ms (slowest) | status ms (slowest) | events | history KB |';
  const lines = results.map(({ engines, readySeconds, scale, query, events, historyBytes }) =>
    [
      ...[engines.toLocaleString('en'), readySeconds],
      ...[scale, query].map(({ medianMs, slowestMs }) => `${medianMs} (${slowestMs})`),
      ...[events.toLocaleString('en'), Math.round(historyBytes / 1000)],
    ].join(' | '),
  );
  return [head, head.replaceAll(/[^|]+/gu, ' --- '), ...lines.map((line) => `| ${line} |`)].join(
    '\n',
  );
}

/** As for a large fleet in production: by default a server takes 1,200 pollers of a namespace, and four partitions a queue. */
const LIMITS = [
  ...['frontend.namespaceCount=20000', 'frontend.namespaceRPS=20000', 'frontend.rps=20000'],
  ...['matching.rps=40000', 'history.rps=20000'],
  ...['matching.numTaskqueueReadPartitions=1', 'matching.numTaskqueueWritePartitions=1'],
];

async function measureAll(address) {
  Runtime.install({ logger: new DefaultLogger('ERROR') });
  const client = new Client({ connection: await Connection.connect({ address }) });
  const connection = await NativeConnection.connect({ address });
  const results = [];
  for (const text of values.engines.split(',')) {
    results.push(await measure(client, connection, address, Number(text)));
    console.error(JSON.stringify(results.at(-1)));
  }
  if (values.json !== undefined)
    writeFileSync(values.json, `${JSON.stringify(results, null, 2)}\n`);
  console.log(table(results));
  await client.connection.close();
  await connection.close();
}

const temporal = await findTemporal();
if (temporal === undefined) throw new Error('No Temporal CLI: run `npm run setup` first.');
const port = String(await getPort({ host: '127.0.0.1' }));
const server = execa(
  temporal.command,
  [
    ...['server', 'start-dev', '--headless', '--ip', '127.0.0.1', '--port', port],
    ...['--log-level', 'error'],
    ...LIMITS.flatMap((limit) => ['--dynamic-config-value', limit]),
  ],
  { stdio: ['ignore', 'ignore', 'inherit'], reject: false },
);
try {
  await measureAll(`127.0.0.1:${port}`);
} finally {
  server.kill();
}
