import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

import type { Logger } from '@temporalio/worker';

import type { MetricsAddress } from './address.js';

/** What a path answers: its type and its text. */
export interface Page {
  readonly type: string;
  readonly text: string;
}

export interface MetricsServer {
  readonly port: number;
  close(): void;
}

/**
 * Serves the pages by their paths, for GET. At any other port when this one is taken; not at all, with a line in the
 * log, when the host is none of this machine's.
 */
export async function serveMetrics(
  { host, port }: MetricsAddress,
  pages: Readonly<Record<string, () => Promise<Page>>>,
  logger: Logger,
): Promise<MetricsServer | undefined> {
  const answer: RequestListener = (request, response) => {
    const page = pages[(request.url ?? '').replace(/\?.*$/u, '')];
    if (request.method !== 'GET' || page === undefined) {
      response.writeHead(404).end();
      return;
    }
    page().then(
      ({ type, text }) => response.writeHead(200, { 'content-type': type }).end(text),
      (error: unknown) => {
        logger.warn('metrics could not be told', { path: request.url, error: String(error) });
        // Prometheus keeps the targets that it knows when it is not told any.
        response.writeHead(503).end();
      },
    );
  };
  for (const one of [port, 0]) {
    try {
      const server = await listen(answer, host, one);
      const { port: bound } = server.address() as AddressInfo;
      if (bound !== port) logger.warn('metrics are at another port', { host, port: bound });
      else logger.info('metrics', { host, port: bound });
      return { port: bound, close: () => server.close() };
    } catch (error) {
      logger.warn('no metrics at this address', { host, port: one, error: String(error) });
    }
  }
  return undefined;
}

async function listen(answer: RequestListener, host: string, port: number): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer(answer);
    server.once('error', reject);
    server.listen(port, host, () => {
      // Metrics keep no process alive.
      server.unref();
      resolve(server);
    });
  });
}
