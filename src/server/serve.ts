import path from 'node:path';

import type { FastifyInstance } from 'fastify';
import { type DestinationStream, type Logger, pino } from 'pino';

import { ClientError } from '../client/errors.js';
import { buildApp } from './app.js';
import { Batches } from './batches.js';
import { Keeper } from './keeper.js';
import { KeyStore } from './keys.js';
import type { Runs } from './runs.js';
import { Spaces } from './spaces.js';
import type { UploadLimits } from './upload.js';

export interface ServerOptions {
  /** Root of the store that runs write to: a folder. */
  readonly store: string;
  readonly runs: Runs;
  /** Ids of the models that are served. */
  readonly models: ReadonlySet<string>;
  readonly limits: UploadLimits;
  readonly requestsPerMinute: number;
  /** How long a batch may take. */
  readonly windowSeconds: number;
  readonly version: string;
  readonly logger: Logger;
}

/** A server that is put together: its routes, and what looks after its open batches. */
export interface Server {
  readonly app: FastifyInstance;
  readonly batches: Batches;
  readonly keeper: Keeper;
}

/** Where a server keeps its keys, files and batches: beside the runs. */
export const recordsFolder = (store: string): string => path.join(store, 'api');

/** Logs as JSON lines, on standard error unless told otherwise. */
export const serverLogger = (
  destination: DestinationStream = pino.destination(2),
  level = 'info',
  name = 'serve',
): Logger =>
  // The parser of forms traces the headers that it was given.
  pino({ name, level, redact: ['*.headers.authorization'] }, destination);

export async function createServer(options: ServerOptions): Promise<Server> {
  const { store, runs, models, limits, logger } = options;
  const root = recordsFolder(store);
  const spaces = new Spaces(store, root, Date.now, logger);
  const batches = new Batches({
    ...{ store, spaces, runs, models },
    maxRows: limits.rows,
    storedBytes: limits.storedBytes,
    windowSeconds: options.windowSeconds,
    log: logger,
  });
  const app = await buildApp({
    ...{ spaces, batches, models, limits, logger },
    keys: new KeyStore(root),
    requestsPerMinute: options.requestsPerMinute,
    ping: () => runs.ping(),
    version: options.version,
  });
  return { app, batches, keeper: new Keeper(batches, spaces, logger) };
}

/** Milliseconds that requests which go on get to end by themselves: an upload should not be lost to a restart. */
const GRACE_MS = 30_000;
/** Milliseconds after which the connection of a request that has ended is closed. */
const IDLE_MS = 200;

/**
 * Serves until `signal` is aborted; then takes no new requests, lets those that go on end, and returns. Batches go
 * on without the server.
 *
 * @param onListening told the address, e.g. `http://127.0.0.1:8000`
 * @throws ClientError `Usage` when the address is not to be had
 */
export async function serve(
  { app, keeper }: Server,
  listen: { readonly host: string; readonly port: number },
  signal: AbortSignal,
  onListening: (address: string) => void,
): Promise<void> {
  onListening(await listenOn(app, listen));
  keeper.start();
  if (!signal.aborted) {
    await new Promise<void>((resolve) => {
      signal.addEventListener('abort', () => resolve(), { once: true });
    });
  }
  const impatient = setTimeout(() => app.server.closeAllConnections(), GRACE_MS);
  // Connections that are kept open between requests would otherwise be waited for.
  const idle = setInterval(() => app.server.closeIdleConnections(), IDLE_MS);
  await Promise.all([app.close(), keeper.stop()]);
  clearTimeout(impatient);
  clearInterval(idle);
}

/**
 * Listens.
 *
 * @returns the address
 * @throws ClientError `Usage` when it is not to be had
 */
export async function listenOn(
  app: FastifyInstance,
  { host, port }: { readonly host: string; readonly port: number },
): Promise<string> {
  try {
    return await app.listen({ host, port });
  } catch (error) {
    await app.close();
    const { code } = error as NodeJS.ErrnoException;
    throw new ClientError('Usage', `Nothing can listen on ${host}:${port} (${code}).`, {
      wayOut: 'Choose another address with --host and --port; 0 takes a free port.',
      cause: error,
    });
  }
}
