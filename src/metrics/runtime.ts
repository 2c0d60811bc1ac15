import { Runtime, type Logger } from '@temporalio/worker';
import getPort from 'get-port';

const LOOPBACK = '127.0.0.1';
/** Somebody else may take a port between the moment it is seen to be free and its use. */
const TRIES = 5;
/** The SDK answers from memory, in a millisecond. */
const ANSWER_MS = 2_000;

/**
 * Installs Temporal's runtime with metrics, which its core serves itself: at a free port of the loopback. Without
 * metrics when that cannot be had.
 *
 * @returns that port
 */
export async function installRuntimeWithMetrics(logger: Logger): Promise<number | undefined> {
  for (let tries = 0; tries < TRIES; tries += 1) {
    const port = await getPort({ host: LOOPBACK });
    try {
      Runtime.install({
        logger,
        telemetryOptions: {
          metrics: {
            attachServiceName: false,
            prometheus: {
              bindAddress: `${LOOPBACK}:${port}`,
              countersTotalSuffix: true,
              unitSuffix: true,
              useSecondsForDurations: true,
            },
          },
        },
      });
      return port;
    } catch (error) {
      logger.warn('the Temporal SDK cannot serve its metrics', { port, error: String(error) });
    }
  }
  Runtime.install({ logger });
  return undefined;
}

/** The metrics that the SDK's core serves at this port, in Prometheus' text format; empty when it does not answer. */
export async function temporalMetrics(port: number): Promise<string> {
  try {
    const url = `http://${LOOPBACK}:${port}/metrics`;
    const answer = await fetch(url, { signal: AbortSignal.timeout(ANSWER_MS) });
    return answer.ok ? await answer.text() : '';
  } catch {
    return '';
  }
}
