/** A process of `many-engines.js`: a poller for each engine that it is told to start, until it is told to end it. */
import { DefaultLogger, NativeConnection, Runtime, Worker } from '@temporalio/worker';

Runtime.install({ logger: new DefaultLogger('ERROR') });
const connection = await NativeConnection.connect({ address: process.argv[2] });
const running = new Map();

async function start(taskQueue) {
  const worker = await Worker.create({
    connection,
    taskQueue,
    activities: {
      canary: async () => ({ engine: taskQueue, loadSeconds: 0, batches: 0 }),
      drain: async () => ({ engine: taskQueue, waitingRows: 0, cutRows: 0, seconds: 0 }),
    },
    maxConcurrentActivityTaskPolls: 1,
    maxConcurrentActivityTaskExecutions: 2,
  });
  running.set(taskQueue, { worker, done: worker.run() });
}

async function end(taskQueue) {
  const { worker, done } = running.get(taskQueue);
  running.delete(taskQueue);
  worker.shutdown();
  await done;
}

async function done({ number, what, taskQueue }) {
  await (what === 'start' ? start(taskQueue) : end(taskQueue));
  process.send({ number });
}

process.on('message', (order) => void done(order));
process.on('disconnect', () => process.exit());
process.send({ number: 0 });
