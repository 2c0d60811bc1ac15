import type { Client } from '@temporalio/client';
import proto from '@temporalio/proto';
import { DefaultLogger, type ReplayHistoriesIterable, Runtime, Worker } from '@temporalio/worker';

import { workflowCode } from '../../dist/workers/workflow-code.js';
import type { Violation } from './violation.js';

const { History } = proto.temporal.api.history.v1;

/** One history, and its bytes for the search for leaks. */
export interface DownloadedHistory {
  readonly workflowId: string;
  readonly runId: string;
  readonly history: proto.temporal.api.history.v1.IHistory;
  readonly bytes: Uint8Array;
}

/** Every history that the server has, of workflows that have ended and of those that go on. */
export async function downloadHistories(client: Client): Promise<DownloadedHistory[]> {
  const found: DownloadedHistory[] = [];
  for await (const { workflowId, runId } of client.workflow.list()) {
    const history = await client.workflow.getHandle(workflowId, runId).fetchHistory();
    found.push({ workflowId, runId, history, bytes: History.encode(history).finish() });
  }
  return found;
}

/** A process has one runtime, and it can be installed once. */
let installed = false;

/** I5: the workflow code as it is built now does again what every history says that it did. */
export async function checkReplay(histories: readonly DownloadedHistory[]): Promise<Violation[]> {
  const logger = new DefaultLogger('ERROR');
  if (!installed) Runtime.install({ logger });
  installed = true;
  const violations: Violation[] = [];
  const iterable: ReplayHistoriesIterable = histories.map(({ workflowId, history }) => ({
    workflowId,
    history,
  }));
  for await (const { workflowId, error } of Worker.runReplayHistories(
    workflowCode(false, true),
    iterable,
  )) {
    if (error === undefined) continue;
    violations.push({
      invariant: 'I5',
      code: 'replay',
      message: `${workflowId} does not replay: ${error.message.slice(0, 300)}`,
    });
  }
  return violations;
}
