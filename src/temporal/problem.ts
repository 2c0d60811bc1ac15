import { connect as connectPlain, isIP, type Socket } from 'node:net';
import { connect as connectTls, type ConnectionOptions } from 'node:tls';

import { ClientError } from '../client/errors.js';
import type { TemporalSettings } from './settings.js';

type Tls = TemporalSettings['options']['tls'];

/** What is wrong with a connection that failed, and what helps. */
interface Problem {
  readonly message: string;
  readonly wayOut: string;
}

/** The hello of a server takes as long as the way to it. */
const HANDSHAKE_MS = 3_000;
/** A server speaks first over HTTP/2, or says that it refuses the certificate: both right after the handshake. */
const FIRST_WORD_MS = 1_000;

/** End of the message when nothing is known but that. */
export const NO_ANSWER = 'does not answer.';

/** gRPC codes of a server that does not accept who asks: permission denied, unauthenticated. */
const REFUSED: ReadonlySet<unknown> = new Set([7, 16]);
/** The same in the words of the core: names of the codes, or what its library says of them. */
const REFUSED_WORDS =
  /unauthenticated|permission ?denied|valid authentication credentials|caller does not have permission/iu;

/**
 * The error of a connection that failed, with its reason. gRPC only says that it took too long, so the handshake is
 * tried again here to see what is wrong with it.
 *
 * @returns ClientError `Unreachable`
 */
export async function connectionError(
  address: string,
  { tls, apiKey }: TemporalSettings['options'],
  cause: unknown,
): Promise<ClientError> {
  if (cause instanceof ClientError) return cause;
  const problem = isRefusal(cause)
    ? refusal(address, apiKey !== undefined)
    : await handshakeProblem(address, tls);
  const message = problem?.message ?? `Temporal at ${address} ${NO_ANSWER}`;
  return new ClientError('Unreachable', message, { wayOut: problem?.wayOut, cause });
}

/** Clients have the code of gRPC; the core of workers tells it in words. */
function isRefusal(error: unknown): boolean {
  for (let link = error; link instanceof Error; link = link.cause) {
    if (REFUSED.has((link as Error & { code?: unknown }).code)) return true;
    if (REFUSED_WORDS.test(link.message)) return true;
  }
  return false;
}

const refusal = (address: string, hasKey: boolean): Problem =>
  hasKey
    ? {
        message: `Temporal at ${address} refuses the API key.`,
        wayOut:
          'Check TEMPORAL_API_KEY (or api_key of the profile): is it for this namespace, and not expired or revoked?',
      }
    : {
        message: `Temporal at ${address} asks who this is, and there is no API key.`,
        wayOut: 'Set TEMPORAL_API_KEY, or api_key of the profile in temporal.toml.',
      };

/** Tries the handshake; undefined when nothing is wrong with it, or nothing listens. */
async function handshakeProblem(address: string, tls: Tls): Promise<Problem | undefined> {
  const at = /^\[?(?<host>.+?)\]?:(?<port>\d+)$/u.exec(address)?.groups;
  if (at === undefined) return undefined;
  const { host = '', port = '' } = at;
  const where = { host, port: Number(port), ALPNProtocols: ['h2'] };
  if (!tls) {
    // A certificate does not matter here: only whether this is TLS at all.
    const error = await handshake({ ...where, ...nameOf(host), rejectUnauthorized: false });
    return error === undefined || isClientRefusal(error) ? NO_TLS(address) : undefined;
  }
  const given = tls === true ? {} : tls;
  const { serverNameOverride, serverRootCACertificate: ca, clientCertPair: pair } = given;
  const name = serverNameOverride ?? host;
  try {
    const error = await handshake({
      ...where,
      ...nameOf(name),
      ...(ca && { ca: Buffer.from(ca) }),
      ...(pair && { cert: Buffer.from(pair.crt), key: Buffer.from(pair.key) }),
    });
    return error && explain(address, name, error, pair !== undefined && pair !== null);
  } catch (error) {
    // What Node cannot even read: no certificate, or a key of another one.
    return {
      message: `The certificates for Temporal cannot be used: ${(error as Error).message}.`,
      wayOut:
        'Check that the TEMPORAL_TLS_… files are in PEM form, and that the key is that of the certificate.',
    };
  }
}

/** Addresses are no names: TLS has none for them. */
const nameOf = (name: string): { servername?: string } =>
  isIP(name) === 0 ? { servername: name } : {};

const NO_TLS = (address: string): Problem => ({
  message: `Temporal at ${address} speaks TLS, and no TLS is configured.`,
  wayOut: 'Set TEMPORAL_TLS=true, or the TEMPORAL_TLS_… variables for its certificates.',
});

/** OpenSSL's codes for a certificate that nothing known vouches for. */
const UNKNOWN_CA: ReadonlySet<string> = new Set([
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
]);

function explain(
  address: string,
  name: string,
  error: NodeJS.ErrnoException,
  hasCertificate: boolean,
): Problem | undefined {
  const { code = '' } = error;
  if (code === 'CERT_HAS_EXPIRED' || code === 'CERT_NOT_YET_VALID') {
    return {
      message: `The certificate of Temporal at ${address} ${code === 'CERT_HAS_EXPIRED' ? 'has expired' : 'is not valid yet'}.`,
      wayOut: 'Have it renewed, and check the clock of this host.',
    };
  }
  if (UNKNOWN_CA.has(code)) {
    return {
      message: `The certificate of Temporal at ${address} is from an authority that is not known here.`,
      wayOut: 'Name the certificate of that authority with TEMPORAL_TLS_SERVER_CA_CERT_PATH.',
    };
  }
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    return {
      message: `The certificate of Temporal at ${address} is not for the name ${name}.`,
      wayOut: 'Set TEMPORAL_TLS_SERVER_NAME to a name that is in it.',
    };
  }
  if (isClientRefusal(error)) {
    return hasCertificate
      ? {
          message: `Temporal at ${address} refuses the client certificate.`,
          wayOut:
            'Check that TEMPORAL_TLS_CLIENT_CERT_PATH has not expired, and is from an authority that the server knows.',
        }
      : {
          message: `Temporal at ${address} asks for a client certificate.`,
          wayOut: 'Set TEMPORAL_TLS_CLIENT_CERT_PATH and TEMPORAL_TLS_CLIENT_KEY_PATH.',
        };
  }
  if (
    /wrong.version|packet.length|http.request|before secure TLS/iu.test(`${code} ${error.message}`)
  ) {
    return {
      message: `Temporal at ${address} does not speak TLS.`,
      wayOut:
        'Unset TEMPORAL_TLS, TEMPORAL_TLS_… and TEMPORAL_API_KEY for this server (TEMPORAL_TLS=false), or name another one.',
    };
  }
  return undefined;
}

const CLIENT_REFUSED = 'the connection was closed after the handshake';

/** A server says so by an alert after the handshake, or hangs up. */
const isClientRefusal = ({ message }: Error): boolean =>
  message === CLIENT_REFUSED ||
  /alert (?:certificate|bad certificate|unknown ca|unsupported certificate|access denied|handshake failure)|certificate.required/iu.test(
    message,
  );

/** What goes wrong in a handshake; undefined when it is done and the server stays. */
async function handshake(
  options: ConnectionOptions & { readonly host: string; readonly port: number },
): Promise<NodeJS.ErrnoException | undefined> {
  const { host, port } = options;
  const plain = connectPlain({ host, port });
  const reached = await settled(plain, 'connect', HANDSHAKE_MS);
  if (reached !== undefined) {
    plain.destroy();
    return reached;
  }
  const socket = connectTls({ ...options, socket: plain });
  try {
    const failed = await settled(socket, 'secureConnect', HANDSHAKE_MS);
    if (failed !== undefined) return failed;
    return await afterwards(socket);
  } finally {
    socket.destroy();
    plain.destroy();
  }
}

async function settled(
  socket: Socket,
  event: 'connect' | 'secureConnect',
  ms: number,
): Promise<NodeJS.ErrnoException | undefined> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(new Error('took too long')), ms);
    const done = (error?: Error): void => {
      clearTimeout(timer);
      resolve(error);
    };
    socket.once(event, () => done());
    socket.on('error', done);
    socket.once('close', () => done(new Error('the connection was closed')));
  });
}

async function afterwards(socket: Socket): Promise<NodeJS.ErrnoException | undefined> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(undefined), FIRST_WORD_MS);
    const done = (error?: Error): void => {
      clearTimeout(timer);
      resolve(error);
    };
    socket.once('data', () => done());
    socket.on('error', (error: NodeJS.ErrnoException) =>
      done(error.code === 'ECONNRESET' ? new Error(CLIENT_REFUSED) : error),
    );
    socket.once('close', () => done(new Error(CLIENT_REFUSED)));
  });
}
