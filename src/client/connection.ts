import { Client, Connection } from '@temporalio/client';
import { loadClientConfigProfile, toClientOptions } from '@temporalio/envconfig';

import { tracing } from '../tracing/index.js';
import { ClientError } from './errors.js';

/** Milliseconds to wait for Temporal: a local server answers in tens of them, a far one in hundreds. */
const CONNECT_TIMEOUT_MS = 5_000;

export interface ConnectOptions {
  /** Overrides every other setting, `host:port`. */
  readonly address?: string;
}

/** Whether the environment or a `temporal.toml` profile names a Temporal server. */
export function temporalConfigured(): boolean {
  return loadProfile().address !== undefined;
}

/**
 * Connects to Temporal: the address given, else what Temporal's own settings name (`TEMPORAL_ADDRESS`,
 * `TEMPORAL_NAMESPACE`, `TEMPORAL_API_KEY`, TLS, profiles of `temporal.toml`), else the local stack.
 *
 * @throws ClientError `Unreachable` when nothing is configured or running, or it does not answer in 5 s
 */
export async function connect(options: ConnectOptions = {}): Promise<Client> {
  const profile = loadProfile();
  const address = options.address ?? profile.address ?? (await localStackAddress());
  if (address === undefined) {
    throw new ClientError(
      'Unreachable',
      'No Temporal server is configured and no local stack is running.',
    );
  }
  const { connectionOptions, namespace } = toClientOptions({ ...profile, address });
  const { address: _, tls, apiKey, metadata } = connectionOptions;
  try {
    const connection = await Connection.connect({
      address,
      connectTimeout: CONNECT_TIMEOUT_MS,
      ...(tls !== undefined && { tls }),
      ...(apiKey !== undefined && { apiKey }),
      ...(metadata !== undefined && { metadata }),
    });
    const traced = await tracing('rankflow');
    const interceptors = traced && { interceptors: traced.client };
    return new Client({ connection, namespace: namespace ?? 'default', ...interceptors });
  } catch (error) {
    throw new ClientError('Unreachable', `Temporal at ${address} does not answer.`, {
      cause: error,
    });
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

function loadProfile(): ReturnType<typeof loadClientConfigProfile> {
  try {
    return loadClientConfigProfile();
  } catch (error) {
    throw new ClientError('Usage', `Temporal's settings cannot be read: ${String(error)}`, {
      wayOut: 'Check TEMPORAL_PROFILE, TEMPORAL_CONFIG_FILE and temporal.toml.',
      cause: error,
    });
  }
}
