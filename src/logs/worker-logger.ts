import type { Logger } from '@temporalio/worker';
import { pino, type DestinationStream } from 'pino';

import { idsOfWorkflow } from './ids.js';

/** No part of Rankflow logs what requests say. Should one ever do so, these do not get out. */
const NEVER = ['prompt', 'messages', 'body', 'answer', 'choices'];

/**
 * What a worker of Temporal logs, as JSON lines with the ids of the run, rank, fleet, cluster or job that they are
 * about; on standard error unless told otherwise, in the order in which pino writes them.
 */
export function workerLogger(
  name: string,
  destination: DestinationStream = pino.destination(2),
): Logger {
  const redact = NEVER.flatMap((key) => [key, `*.${key}`]);
  const logger = pino({ name, redact }, destination);
  const at =
    (level: 'trace' | 'debug' | 'info' | 'warn' | 'error') =>
    (message: string, fields: Record<string | symbol, unknown> = {}): void => {
      // Symbols are the SDK's own; pino would print none of them.
      logger[level]({ ...idsOfWorkflow(fields['workflowId']), ...fields }, message);
    };
  return {
    log: (level, message, fields) => at(level.toLowerCase() as 'info')(message, fields),
    trace: at('trace') as Logger['trace'],
    debug: at('debug') as Logger['debug'],
    info: at('info') as Logger['info'],
    warn: at('warn') as Logger['warn'],
    error: at('error') as Logger['error'],
  };
}
