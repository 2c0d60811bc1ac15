import type { Command } from 'commander';

import { collect } from './collect.js';
import { addKeyCommands, type KeyFlags } from './key-commands.js';
import {
  addEngineOptions,
  addGenerationOptions,
  addPlacementOptions,
  MODEL_HELP,
  type RunFlags,
} from './run-options.js';
import { endSignal, integer } from './server-options.js';

interface Flags extends Omit<RunFlags, 'model'> {
  readonly model?: readonly string[];
  readonly models?: string;
  readonly host: string;
  readonly port: number;
  readonly maxFileMb: number;
  readonly maxRows: number;
  readonly maxStoredMb?: number;
  readonly rateLimit: number;
  readonly windowHours: number;
  /** False with `--no-start`. */
  readonly start: boolean;
}

/** `rankflow serve`: an OpenAI-compatible batch API; `rankflow serve keys`: who may use it. */
export function register(program: Command): void {
  const serve = program
    .command('serve')
    .description('serve an OpenAI-compatible batch API: files, batches, models')
    // Options of `serve keys …` are its own, also those of the same name.
    .enablePositionalOptions()
    .option('--model <model>', `${MODEL_HELP}; repeat it for more`, collect)
    .option('--models <file>', 'JSON: models by name, each with the options that differ for it')
    .option('--host <address>', 'address to listen on', '127.0.0.1')
    .option('--port <n>', 'port to listen on; 0 takes a free one', integer(0, 65_535), 8000)
    .option('--store <folder>', 'folder that holds files, batches, plans and results')
    .option('--max-file-mb <n>', 'largest file, in MB', integer(1, 100_000), 200)
    .option('--max-rows <n>', 'most requests of a batch', integer(1, 10_000_000), 50_000)
    .option(
      '--max-stored-mb <n>',
      'what the files of one key may take together, in MB (default: no limit)',
      integer(1, 100_000_000),
    )
    .option('--rate-limit <n>', 'requests of one key in a minute', integer(1, 1_000_000), 600)
    .option('--window-hours <n>', 'hours after which a batch expires', integer(1, 720), 24)
    .option('--no-start', 'do not start Temporal and the workers on this machine');
  addPlacementOptions(addGenerationOptions(addEngineOptions(serve)))
    .option('--no-keep', 'take the cluster and the engines down when no batch is left')
    .addHelpText('after', HELP)
    .action(run);

  const keys = serve.command('keys').description('API keys: create, list, revoke');
  addKeyCommands(keys, {
    name: 'rankflow serve keys',
    open: keyStore,
    revoked: 'The key is revoked; its files and batches are kept.',
    sameAs: 'see the files and batches of this key, to replace it',
  });
}

const HELP = `
Point any OpenAI client at it: base URL http://HOST:PORT/v1, and a key of \`rankflow serve keys create NAME\`. The
document is at /openapi.json, health at /healthz and /readyz. A batch is an ordinary run with the batch's id; it goes
on when the server stops. Servers that share a store have to serve the same models.`;

async function run(flags: Flags, command: Command): Promise<void> {
  const { checkModels, nodeFlagsOf, readModels } = await import('./serve-models.js');
  const { checkUp, startOnClusterLater, startStackUnless } = await import('./prepare.js');
  const { print, say } = await import('./output.js');
  const { createServer, recordsFolder, serve, serverLogger } = await import('../server/serve.js');
  const { TemporalRuns } = await import('../server/runs.js');
  const { KeyStore } = await import('../server/keys.js');
  const { withClient } = await import('../client/connection.js');
  const { requireSameEncryption } = await import('../client/encryption.js');
  const { encryption } = await import('../encryption/index.js');

  const store = await storeFolder(flags.store);
  const served = await readModels({ ...flags, store }, command);
  const clusters = await checkModels(served);
  if ((await new KeyStore(recordsFolder(store)).list()).length === 0) {
    say('There is no API key yet: rankflow serve keys create NAME');
  }
  await startStackUnless(!flags.start);
  await withClient(async (client) => {
    for (const [id, options] of served) {
      const cluster = clusters.get(id);
      if (cluster !== undefined) await checkUp(client, cluster, nodeFlagsOf(options));
    }
    const runs = new TemporalRuns(client, served, async (where, prepared, options) => {
      // Nobody may have worked when this server connected.
      await requireSameEncryption(where, encryption().on);
      return startOnClusterLater(where, prepared, nodeFlagsOf(options));
    });
    const server = await createServer({
      ...{ store, runs, models: new Set(served.keys()) },
      limits: {
        ...{ bytes: flags.maxFileMb * 1_000_000, rows: flags.maxRows },
        ...(flags.maxStoredMb !== undefined && { storedBytes: flags.maxStoredMb * 1_000_000 }),
      },
      requestsPerMinute: flags.rateLimit,
      windowSeconds: flags.windowHours * 3_600,
      version: command.parent?.version() ?? '',
      logger: serverLogger(),
    });
    const listen = { host: flags.host, port: flags.port };
    await serve(server, listen, endSignal(), (address) => {
      say(`Serving ${[...served.keys()].join(', ')}. Ctrl-C ends the server; batches go on.`);
      print(`${address}/v1`);
    });
  });
}

/** @throws ClientError `UnsupportedInput` for a bucket */
async function storeFolder(store: string | undefined): Promise<string> {
  const path = await import('node:path');
  const { paths } = await import('../setup/paths.js');
  const { ClientError } = await import('../client/errors.js');
  const folder = (store ?? paths.store).replace(/^file:\/\//u, '');
  if (!folder.includes('://')) {
    const { allowed } = await import('../roots.js');
    return allowed(path.resolve(folder));
  }
  throw new ClientError('UnsupportedInput', `--store: ${folder} is no folder.`, {
    wayOut: 'Files and batches are kept in a folder, local or shared (NFS).',
  });
}

async function keyStore(flags: KeyFlags) {
  const { KeyStore } = await import('../server/keys.js');
  const { recordsFolder } = await import('../server/serve.js');
  return new KeyStore(recordsFolder(await storeFolder(flags.store)));
}
