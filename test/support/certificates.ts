import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';

/** Files of a certificate and its key. */
export interface Pair {
  readonly cert: string;
  readonly key: string;
}

/** Certificates that a test makes for itself, with openssl, in a folder of its own. */
export class Certificates {
  constructor(private readonly folder: string) {
    mkdirSync(folder, { recursive: true });
  }

  /** An authority. */
  authority(name: string): Pair {
    const { cert, key } = this.#files(name);
    openssl(
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'],
      ...['-subj', `/CN=${name}`, '-days', '2', '-keyout', key, '-out', cert],
    );
    return { cert, key };
  }

  /**
   * A certificate for a server or a client.
   *
   * @param days how long it is valid; less than 0 for one that has expired
   */
  signed(name: string, by: Pair, host: string, days = 2): Pair {
    const { cert, key, request, extensions } = this.#files(name);
    const address = /^[\d.]+$/u.test(host) ? 'IP' : 'DNS';
    writeFileSync(extensions, `subjectAltName=${address}:${host}\n`);
    openssl(
      ...['req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'],
      ...['-subj', `/CN=${name}`, '-keyout', key, '-out', request],
    );
    openssl(
      ...['x509', '-req', '-in', request, '-CA', by.cert, '-CAkey', by.key, '-CAcreateserial'],
      ...['-days', String(days), '-extfile', extensions, '-out', cert],
    );
    return { cert, key };
  }

  #files(name: string) {
    const at = (ending: string): string => path.join(this.folder, `${name}.${ending}`);
    return { cert: at('pem'), key: at('key'), request: at('csr'), extensions: at('ext') };
  }
}

function openssl(...args: readonly string[]): void {
  execFileSync('openssl', args, { stdio: ['ignore', 'ignore', 'pipe'] });
}
