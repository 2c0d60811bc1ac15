/** `worker.js ADDRESS NAMESPACE QUEUE BUNDLE`: a worker of its own process, which can be killed. */
import { DefaultLogger, NativeConnection, Runtime, Worker } from '@temporalio/worker';

const [address, namespace, taskQueue, codePath] = process.argv.slice(2);
Runtime.install({ logger: new DefaultLogger('ERROR', () => {}) });
const worker = await Worker.create({
  connection: await NativeConnection.connect({ address }),
  namespace,
  taskQueue,
  workflowBundle: { codePath },
  stickyQueueScheduleToStartTimeout: '8 seconds',
});
console.log('polls');
await worker.run();
