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
  if (typeof apiKey === 'string') checkKey(apiKey);
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

/** The library that sends it would quote it in its error. */
function checkKey(apiKey: string): void {
  if (/^[\x21-\x7e]+$/u.test(apiKey)) return;
  throw new ClientError(
    'Usage',
    'The API key for Temporal has a blank, a line end or another character that cannot be sent.',
    {
      wayOut:
        'Mend TEMPORAL_API_KEY, or api_key in temporal.toml: often it is a line end after the key.',
    },
  );
}

function read<T>(load: () => T): T {
  try {
    return load();
  } catch (error) {
    throw new ClientError('Usage', `Temporal's settings cannot be read: ${reasonOf(error)}`, {
      wayOut: WAY_OUT,
    });
  }
}

/** Why settings cannot be read, without what is in them: a parser quotes lines, which may hold a key. */
function reasonOf(error: unknown): string {
  const { code, path: file } = error as NodeJS.ErrnoException;
  const { line, column } = error as { line?: number; column?: number };
  if (line !== undefined) {
    return `the file of profiles is not TOML (line ${line}, column ${column})`;
  }
  // Temporal's library takes it for granted that there is one.
  if (error instanceof TypeError) return 'the file of profiles has no [profile.NAME] in it';
  if (file === undefined) return String(error);
  return `${file} ${code === 'ENOENT' ? 'is not there' : `cannot be read (${code})`}`;
}
