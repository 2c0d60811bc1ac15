import type { Command } from 'commander';

import { collect } from './collect.js';
import { addKeyCommands, type KeyFlags } from './key-commands.js';
import { endSignal, integer } from './server-options.js';

interface Flags extends KeyFlags {
  readonly host: string;
  readonly port: number;
  readonly origin?: readonly string[];
  /** False with `--no-auth`. */
  readonly auth: boolean;
}

/** `rankflow codec-server`: decodes for Temporal's web interface and command line; its keys, and those of payloads. */
export function register(program: Command): void {
  const server = program
    .command('codec-server')
    .description("decode encrypted payloads for Temporal's web interface and command line")
    .enablePositionalOptions()
    .option('--host <address>', 'address to listen on', '127.0.0.1')
    .option('--port <n>', 'port to listen on; 0 takes a free one', integer(0, 65_535), 8081)
    .option(
      '--origin <url>',
      "web interface whose pages may ask; the local stack's by default",
      collect,
    )
    .option('--no-auth', 'ask for no key, which only the loopback may do')
    .option('--store <folder>', 'store that holds the keys of callers')
    .addHelpText('after', HELP)
    .action(run);
  const keys = server.command('keys').description('who may ask: create, list, revoke');
  addKeyCommands(keys, {
    name: 'rankflow codec-server keys',
    open: keyStore,
    revoked: 'The key is revoked.',
  });
  server
    .command('key')
    .description('make a key to encrypt payloads with, in a file that only you can read')
    .argument('<file>', 'new file, or one with keys: theirs goes on being the first')
    .option('--first', 'encrypt with it: once every process has the file with it')
    .option('--json', 'print its id as JSON')
    .action(makeKey);
}

const HELP = `
The keys are those of RANKFLOW_ENCRYPTION_KEY_FILE. In Temporal's web interface, set the codec endpoint to the address
that is printed; on its command line, --codec-endpoint ADDRESS --codec-auth 'Bearer KEY'. See docs/security.md.`;

const LOOPBACK = new Set(['127.0.0.1', '::1', 'localhost']);

async function run(flags: Flags): Promise<void> {
  const { ClientError } = await import('../client/errors.js');
  const { encryption } = await import('../encryption/index.js');
  const { KEY_FILE } = await import('../encryption/key-file.js');
  const { buildCodecApp } = await import('../server/codec.js');
  const { listenOn, serverLogger } = await import('../server/serve.js');
  const { print, say } = await import('./output.js');

  const { codec, on } = encryption();
  if (!on) {
    throw new ClientError('Usage', `There is nothing to decode with: ${KEY_FILE} is not set.`, {
      wayOut: `Set ${KEY_FILE} to the file of keys that the workers have.`,
    });
  }
  if (!flags.auth && !LOOPBACK.has(flags.host)) {
    throw new ClientError('Usage', `--no-auth: everybody who reaches ${flags.host} could decode.`, {
      wayOut: 'Listen on the loopback, or make keys: rankflow codec-server keys create NAME',
    });
  }
  const keys = await keyStore(flags);
  if (flags.auth && (await keys.list()).length === 0) {
    say('There is no key yet: rankflow codec-server keys create NAME');
  }
  const app = buildCodecApp({
    codec,
    origins: flags.origin ?? (await stackOrigins()),
    hosts: [...LOOPBACK, '[::1]'],
    logger: serverLogger(undefined, 'info', 'codec-server'),
    ...(flags.auth && { keys }),
  });
  const address = await listenOn(app, flags);
  print(address);
  const signal = endSignal();
  await new Promise<void>((resolve) => {
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
  await app.close();
}

/** The web interface of the local stack, under both of its names. */
async function stackOrigins(): Promise<string[]> {
  const { stackStatus } = await import('../workers/stack/index.js');
  const url = stackStatus().stack?.uiUrl;
  return url === undefined ? [] : [url, url.replace('127.0.0.1', 'localhost')];
}

/** Apart from those of the batch API: who may send batches is not to read everybody's histories. */
async function keyStore(flags: KeyFlags) {
  const path = await import('node:path');
  const { paths } = await import('../setup/paths.js');
  const { allowed } = await import('../roots.js');
  const { KeyStore } = await import('../server/keys.js');
  return new KeyStore(path.join(allowed(path.resolve(flags.store ?? paths.store)), 'codec'));
}

async function makeKey(
  file: string,
  flags: { readonly first?: boolean; readonly json?: boolean },
): Promise<void> {
  const { addKey } = await import('../encryption/make-key.js');
  const { print, printJson, say } = await import('./output.js');
  const made = await addKey(file, flags.first ?? false);
  if (flags.json) printJson(made);
  else print(made.id);
  say(
    made.first
      ? `${made.file} encrypts with this key: RANKFLOW_ENCRYPTION_KEY_FILE=${made.file}`
      : `${made.file} decrypts with this key, too. Once every process has it: put its line first.`,
  );
}
