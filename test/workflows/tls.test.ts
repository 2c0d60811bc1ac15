import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { NativeConnection } from '@temporalio/worker';
import { afterAll, afterEach, beforeAll, describe, expect, inject, it, vi } from 'vitest';

import { connect } from '../../src/client/connection.js';
import { describeFailure } from '../../src/client/errors.js';
import { connectionError } from '../../src/temporal/problem.js';
import { temporalSettings } from '../../src/temporal/settings.js';
import { Certificates, type Pair } from '../support/certificates.js';
import { type Front, keyFront, tlsFront } from '../support/tls-front.js';

/** Certificates made by the test, a front with TLS, and Temporal's dev server behind it. */
const folder = mkdtempSync(path.join(tmpdir(), 'rankflow-tls-'));
const made = new Certificates(folder);
const KEY = 'key-canary-c0ffee';
let authority: Pair;
let client: Pair;
let mutual: Front;
let expired: Front;
let named: Front;
let keyed: Front;

beforeAll(async () => {
  const target = inject('temporalAddress');
  authority = made.authority('authority');
  const clients = made.authority('clients');
  client = made.signed('client', clients, 'client');
  mutual = await tlsFront(target, made.signed('server', authority, 'localhost'), clients);
  expired = await tlsFront(target, made.signed('old', authority, 'localhost', -1), clients);
  named = await tlsFront(target, made.signed('named', authority, 'temporal.internal'), clients);
  keyed = await keyFront(target, made.signed('keyed', authority, 'localhost'), KEY);
});
afterEach(() => vi.unstubAllEnvs());
afterAll(async () => {
  for (const front of [mutual, expired, named, keyed]) await front.close();
  rmSync(folder, { recursive: true, force: true });
});

/** Settings of this process and no others, as a user's shell has them. */
function configure(port: number, settings: Readonly<Record<string, string>>): void {
  vi.stubEnv('TEMPORAL_CONFIG_FILE', path.join(folder, 'none.toml'));
  vi.stubEnv('TEMPORAL_ADDRESS', `localhost:${port}`);
  vi.stubEnv('TEMPORAL_NAMESPACE', 'secure');
  for (const [name, value] of Object.entries(settings)) vi.stubEnv(`TEMPORAL_${name}`, value);
}

const withAuthority = (): Record<string, string> => ({
  TLS_SERVER_CA_CERT_PATH: authority.cert,
});
const withCertificate = ({ cert, key }: Pair = client): Record<string, string> => ({
  ...withAuthority(),
  TLS_CLIENT_CERT_PATH: cert,
  TLS_CLIENT_KEY_PATH: key,
});

/** What a client says, and what a worker says: both, and the same. */
async function problem(): Promise<{ message: string; wayOut?: string | undefined }> {
  const [asClient, asWorker] = [await fail(connect()), await fail(worker())];
  expect(asWorker).toEqual(asClient);
  return asClient;
}

async function fail(work: Promise<unknown>): Promise<{ message: string; wayOut?: string }> {
  const error = await work.then(
    () => new Error('nothing was refused'),
    (error: unknown) => error,
  );
  const { message, wayOut } = describeFailure(error);
  return { message, ...(wayOut !== undefined && { wayOut }) };
}

/** As the control worker connects. */
async function worker(): Promise<NativeConnection> {
  const { address = '', options } = temporalSettings();
  try {
    return await NativeConnection.connect({ address, ...options });
  } catch (error) {
    throw await connectionError(address, options, error);
  }
}

describe('over mutual TLS', () => {
  it('clients and workers with a certificate are let in', async () => {
    configure(mutual.port, withCertificate());
    const { connection, options } = await connect();
    const { namespace } = options;
    const found = await connection.workflowService.describeNamespace({ namespace });
    expect(found.namespaceInfo?.name).toBe('secure');
    await connection.close();
    const native = await worker();
    await native.workflowService.describeNamespace({ namespace });
    await native.close();
  });

  it('those without one are refused, and told so', async () => {
    configure(mutual.port, withAuthority());
    expect(await problem()).toMatchObject({
      message: expect.stringContaining('asks for a client certificate'),
      wayOut: expect.stringContaining('TEMPORAL_TLS_CLIENT_CERT_PATH'),
    });
  });

  it('a certificate of another authority is refused', async () => {
    configure(mutual.port, withCertificate(made.signed('stranger', authority, 'client')));
    expect((await problem()).message).toContain('refuses the client certificate');
  });

  it('a server of an unknown authority is not trusted', async () => {
    configure(mutual.port, { TLS: 'true' });
    expect(await problem()).toMatchObject({
      message: expect.stringContaining('an authority that is not known here'),
      wayOut: expect.stringContaining('TEMPORAL_TLS_SERVER_CA_CERT_PATH'),
    });
  });

  it('a certificate that has expired is named as such', async () => {
    configure(expired.port, withCertificate());
    expect((await problem()).message).toContain('has expired');
  });

  it('a name that is not in the certificate is told, and can be set', async () => {
    configure(named.port, withCertificate());
    expect(await problem()).toMatchObject({
      message: expect.stringContaining('is not for the name localhost'),
      wayOut: expect.stringContaining('TEMPORAL_TLS_SERVER_NAME'),
    });
    vi.stubEnv('TEMPORAL_TLS_SERVER_NAME', 'temporal.internal');
    await (await connect()).connection.close();
    await (await worker()).close();
  });

  it('TLS on one side only is told', async () => {
    configure(mutual.port, {});
    expect((await problem()).message).toContain('speaks TLS, and no TLS is configured');
    configure(Number(inject('temporalAddress').split(':')[1]), { TLS: 'true' });
    expect((await problem()).message).toContain('does not speak TLS');
  });

  it('a file that is not there and half a pair are named before anything is tried', async () => {
    configure(mutual.port, withCertificate({ cert: client.cert, key: '/nowhere/client.key' }));
    expect((await problem()).message).toContain('/nowhere/client.key is not there');
    vi.unstubAllEnvs();
    configure(mutual.port, { ...withAuthority(), TLS_CLIENT_CERT_PATH: client.cert });
    expect((await problem()).message).toContain('TEMPORAL_TLS_CLIENT_KEY_PATH is not');
  });
});

describe('with an API key', () => {
  it('it is sent as a bearer over TLS', async () => {
    configure(keyed.port, { ...withAuthority(), API_KEY: KEY });
    const { connection } = await connect();
    await connection.close();
    expect(keyed.authorizations).toEqual(new Set([`Bearer ${KEY}`]));
    const native = await worker();
    await native.workflowService.describeNamespace({ namespace: 'secure' });
    await native.close();
    expect(keyed.authorizations).toEqual(new Set([`Bearer ${KEY}`]));
  });

  it('a wrong one is refused, and is in no message', async () => {
    configure(keyed.port, { ...withAuthority(), API_KEY: 'wrong-canary' });
    const refused = await problem();
    expect(refused.message).toContain('refuses the API key');
    expect(JSON.stringify(refused)).not.toContain('wrong-canary');
    vi.unstubAllEnvs();
    configure(keyed.port, withAuthority());
    expect((await problem()).message).toContain('there is no API key');
  });
});
