import { Client, Connection } from '@temporalio/client';

import { encryption } from '../encryption/index.js';
import { connectionError } from '../temporal/problem.js';
import { configuredServer, temporalSettings } from '../temporal/settings.js';
import { tracing } from '../tracing/index.js';
import { requireSameEncryption } from './encryption.js';
import { ClientError } from './errors.js';

/** Milliseconds to wait for Temporal: a local server answers in tens of them, a far one in hundreds. */
const CONNECT_TIMEOUT_MS = 5_000;

export interface ConnectOptions {
  /** Overrides every other setting, `host:port`. */
  readonly address?: string;
}

/** Whether the environment or a `temporal.toml` profile names a Temporal server. */
export const temporalConfigured = (): boolean => configuredServer().address !== undefined;

/**
 * Connects to Temporal: the address given, else what Temporal's own settings name (`TEMPORAL_ADDRESS`,
 * `TEMPORAL_NAMESPACE`, `TEMPORAL_API_KEY`, TLS, profiles of `temporal.toml`), else the local stack. Payloads are
 * encrypted when `RANKFLOW_ENCRYPTION_KEY_FILE` names keys.
 *
 * @throws ClientError `Unreachable` when nothing is configured or running, it does not answer in 5 s, or refuses who
 *   asks; `Usage` when a setting is wrong; `KeyMismatch` when only one of this process and the workers encrypts
 */
export async function connect(options: ConnectOptions = {}): Promise<Client> {
  const settings = temporalSettings();
  const address = options.address ?? settings.address ?? (await localStackAddress());
  if (address === undefined) {
    throw new ClientError(
      'Unreachable',
      'No Temporal server is configured and no local stack is running.',
    );
  }
  const { dataConverter, on } = encryption();
  const { namespace } = settings;
  const connection = await connected(address, settings.options);
  try {
    const traced = await tracing('rankflow');
    const interceptors = traced && { interceptors: traced.client };
    const client = new Client({ connection, namespace, dataConverter, ...interceptors });
    await requireSameEncryption(client, on);
    return client;
  } catch (error) {
    await connection.close();
    throw error;
  }
}

async function connected(
  address: string,
  options: ReturnType<typeof temporalSettings>['options'],
): Promise<Connection> {
  try {
    return await Connection.connect({ address, connectTimeout: CONNECT_TIMEOUT_MS, ...options });
  } catch (error) {
    throw await connectionError(address, options, error);
  }
}

/** Runs `use` with a client and closes its connection afterwards. */
export async function withClient<T>(
  use: (client: Client) => Promise<T>,
  options: ConnectOptions = {},
): Promise<T> {
  const client = await connect(options);
  try {
    return await use(client);
  } finally {
    await client.connection.close();
    await (await tracing('rankflow'))?.flush();
  }
}

async function localStackAddress(): Promise<string | undefined> {
  const { stackAddress } = await import('../workers/stack/index.js');
  return stackAddress();
}
