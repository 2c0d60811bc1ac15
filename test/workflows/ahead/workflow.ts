import { defineQuery, proxyActivities, setHandler, sleep } from '@temporalio/workflow';

interface Gates {
  gate(name: string): Promise<void>;
}

const { gate } = proxyActivities<Gates>({
  taskQueue: 'ahead-of-task-gates',
  startToCloseTimeout: '1 minute',
});
const hop = async <T>(next: () => Promise<T>): Promise<T> => next();

/** What follows the first gate is more awaits away than what follows the second. */
export async function gatesWorkflow(): Promise<void> {
  let passed = 0;
  setHandler(defineQuery<number>('passed'), () => passed);
  const far = async (): Promise<void> => {
    await hop(async () => hop(async () => hop(async () => gate('far'))));
    passed += 1;
    await gate('after');
  };
  const near = async (): Promise<void> => {
    await gate('near');
    passed += 1;
    await sleep(1);
  };
  await Promise.all([far(), near()]);
}
