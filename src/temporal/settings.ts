import { loadClientConfigProfile, toClientOptions } from '@temporalio/envconfig';
import type { NativeConnectionOptions } from '@temporalio/worker';

import { ClientError } from '../client/errors.js';

type Profile = ReturnType<typeof loadClientConfigProfile>;

/** How to reach Temporal: for clients and for workers alike. */
export interface TemporalSettings {
  /** `host:port`; undefined when nothing names a server. */
  readonly address?: string;
  readonly namespace: string;
  readonly options: Pick<NativeConnectionOptions, 'tls' | 'apiKey' | 'metadata'>;
}

const WAY_OUT =
  'Check TEMPORAL_PROFILE, TEMPORAL_CONFIG_FILE and temporal.toml, and the TEMPORAL_TLS_… variables.';

/**
 * Temporal's own settings: `TEMPORAL_ADDRESS`, `TEMPORAL_NAMESPACE`, `TEMPORAL_API_KEY`, `TEMPORAL_TLS_…` and profiles
 * of `temporal.toml`. Files of certificates and keys are read here; nothing of them is in a message.
 *
 * @throws ClientError `Usage` when they cannot be read or do not go together
 */
export function temporalSettings(): TemporalSettings {
  const profile = loadProfile();
  const options = read(() => toClientOptions(profile)).connectionOptions;
  checkPair(profile);
  const { address, tls, apiKey, metadata } = options;
  return {
    ...(address !== undefined && { address }),
    namespace: profile.namespace ?? 'default',
    options: {
      ...(tls !== undefined && { tls }),
      ...(apiKey !== undefined && { apiKey }),
      ...(metadata !== undefined && { metadata }),
    },
  };
}

/** The server that the settings name, if any. Certificates are not looked at. */
export function configuredServer(): { address: string | undefined; namespace: string } {
  const { address, namespace = 'default' } = loadProfile();
  return { address, namespace };
}

const loadProfile = (): Profile => read(() => loadClientConfigProfile());

/** A certificate without its key, or a key without its certificate, would be left out without a word. */
function checkPair({ tls }: Profile): void {
  const [cert, key] = [tls?.clientCert, tls?.clientKey];
  if (tls?.disabled === true || (cert === undefined) === (key === undefined)) return;
  const [there, missing] = cert === undefined ? ['KEY', 'CERT'] : ['CERT', 'KEY'];
  throw new ClientError(
    'Usage',
    `TEMPORAL_TLS_CLIENT_${there}_PATH is set and TEMPORAL_TLS_CLIENT_${missing}_PATH is not.`,
    { wayOut: 'A client certificate and its key go together: name both files.' },
  );
}

function read<T>(load: () => T): T {
  try {
    return load();
  } catch (error) {
    const { code, path: file } = error as NodeJS.ErrnoException;
    const reason =
      file === undefined
        ? String(error)
        : `${file} ${code === 'ENOENT' ? 'is not there' : `cannot be read (${code})`}`;
    throw new ClientError('Usage', `Temporal's settings cannot be read: ${reason}`, {
      wayOut: WAY_OUT,
      cause: error,
    });
  }
}
