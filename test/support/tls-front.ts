import { readFileSync } from 'node:fs';
import http2 from 'node:http2';
import { type AddressInfo, connect, type Server, type Socket } from 'node:net';
import { createServer } from 'node:tls';

import type { Pair } from './certificates.js';

/** A server of TLS before a server without. */
export interface Front {
  readonly port: number;
  /** Values of the `authorization` headers that it has seen; for {@link keyFront} only. */
  readonly authorizations: ReadonlySet<string>;
  close(): Promise<void>;
}

/**
 * TLS that wants to see a certificate of an authority, and passes on what is in it.
 *
 * @param clients authority of the certificates of clients; without it none is asked for
 */
export async function tlsFront(target: string, server: Pair, clients?: Pair): Promise<Front> {
  const sockets = new Set<Socket>();
  const front = createServer(
    {
      ...read(server),
      ALPNProtocols: ['h2'],
      ...(clients && {
        ca: readFileSync(clients.cert),
        requestCert: true,
        rejectUnauthorized: true,
      }),
    },
    (outside) => {
      const inside = connect(where(target));
      for (const one of [outside, inside]) {
        sockets.add(one);
        one.on('error', () => {});
        one.on('close', () => {
          outside.destroy();
          inside.destroy();
        });
      }
      outside.pipe(inside).pipe(outside);
    },
  );
  front.on('tlsClientError', () => {});
  return listening(front, new Set(), () => sockets.forEach((socket) => socket.destroy()));
}

/** TLS that lets only requests with an API key through: it reads gRPC's headers. */
export async function keyFront(target: string, server: Pair, key: string): Promise<Front> {
  const authorizations = new Set<string>();
  const inside = http2.connect(`http://${target}`);
  inside.on('error', () => {});
  const sessions = new Set<http2.ServerHttp2Session>();
  const front = http2.createSecureServer({ ...read(server), allowHTTP1: false });
  front.on('session', (session) => sessions.add(session));
  front.on('stream', (stream, { authorization, ...headers }) => {
    stream.on('error', () => {});
    authorizations.add(authorization ?? '');
    if (authorization !== `Bearer ${key}`) {
      stream.respond(
        {
          ':status': 200,
          'content-type': 'application/grpc',
          'grpc-status': '16',
          'grpc-message': 'no',
        },
        { endStream: true },
      );
      return;
    }
    if (inside.destroyed) {
      stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR);
      return;
    }
    const request = inside.request(headers);
    request.on('error', () => stream.close());
    let trailers: http2.IncomingHttpHeaders = {};
    request.on('response', (answer, flags) => {
      // An answer that is an error is headers and nothing else.
      const endStream = (flags & http2.constants.NGHTTP2_FLAG_END_STREAM) !== 0;
      stream.respond(answer, { waitForTrailers: !endStream, endStream });
    });
    request.on('trailers', (sent) => (trailers = sent));
    stream.on('wantTrailers', () => stream.sendTrailers(trailers));
    stream.on('aborted', () => request.close(http2.constants.NGHTTP2_CANCEL));
    stream.pipe(request);
    request.pipe(stream);
  });
  return listening(front, authorizations, () => {
    inside.destroy();
    sessions.forEach((session) => session.destroy());
  });
}

const read = ({ cert, key }: Pair) => ({ cert: readFileSync(cert), key: readFileSync(key) });

function where(target: string): { host: string; port: number } {
  const [host = '', port = ''] = target.split(':');
  return { host, port: Number(port) };
}

async function listening(
  front: Server,
  authorizations: ReadonlySet<string>,
  end: () => void,
): Promise<Front> {
  await new Promise<void>((resolve) => {
    front.listen(0, '127.0.0.1', resolve);
  });
  const close = async (): Promise<void> => {
    end();
    await new Promise((resolve) => {
      front.close(resolve);
    });
  };
  return { port: (front.address() as AddressInfo).port, authorizations, close };
}
