import type { Command } from 'commander';

import type { KeyStore } from '../server/keys.js';

/** What differs between the commands for keys of two servers. */
export interface KeyCommands {
  /** The command before `create`, `list` and `revoke`, as users write it. */
  readonly name: string;
  readonly open: (flags: KeyFlags) => Promise<KeyStore>;
  /** What stays when a key is revoked. */
  readonly revoked: string;
  /** What a key is for, that it can be for another one too: adds `--same-as`. */
  readonly sameAs?: string;
}

export interface KeyFlags {
  readonly store?: string;
  readonly sameAs?: string;
  readonly json?: boolean;
}

/** Adds `create`, `list` and `revoke`. */
export function addKeyCommands(keys: Command, of: KeyCommands): void {
  const create = keys
    .command('create')
    .description('make a key and print it, this once')
    .argument('<name>', 'whose it is');
  if (of.sameAs !== undefined) create.option('--same-as <id>', of.sameAs);
  const options = (command: Command): Command =>
    command.option('--store <folder>', 'store of the server').option('--json', 'print it as JSON');
  options(create).action(async (name: string, flags: KeyFlags) => createKey(of, name, flags));
  options(keys.command('list').description('show all keys; their secrets are not kept')).action(
    async (flags: KeyFlags) => listKeys(of, flags),
  );
  options(keys.command('revoke').description('end a key, at once').argument('<id>')).action(
    async (id: string, flags: KeyFlags) => revokeKey(of, id, flags),
  );
}

async function createKey(of: KeyCommands, name: string, flags: KeyFlags): Promise<void> {
  const { print, printJson, say } = await import('./output.js');
  const made = await (await of.open(flags)).create(name, flags.sameAs);
  if (made === undefined) return noSuchKey(of, flags.sameAs ?? '');
  const { id, namespace } = made.record;
  if (flags.json) printJson({ id, name, namespace, key: made.key });
  else print(made.key);
  say(`Keep it: it is not shown again. End it with: ${of.name} revoke ${id}`);
}

async function listKeys(of: KeyCommands, flags: KeyFlags): Promise<void> {
  const { print, printJson, say, table } = await import('./output.js');
  const keys = (await (await of.open(flags)).list()).map(({ hash: _hash, ...shown }) => shown);
  if (flags.json) printJson(keys);
  else if (keys.length === 0) say(`There are no keys. Make one: ${of.name} create NAME`);
  else {
    const rows = keys.map(({ id, name, namespace, createdAt, revokedAt }) => {
      const state = revokedAt === undefined ? 'valid' : `revoked ${revokedAt.slice(0, 19)}`;
      return [id, name, namespace, createdAt.slice(0, 19), state];
    });
    print(table([['id', 'name', 'namespace', 'created', 'state'], ...rows]));
  }
}

async function revokeKey(of: KeyCommands, id: string, flags: KeyFlags): Promise<void> {
  const { print, printJson, say } = await import('./output.js');
  if (!(await (await of.open(flags)).revoke(id))) return noSuchKey(of, id);
  if (flags.json) printJson({ id, revoked: true });
  else print(id);
  say(of.revoked);
}

async function noSuchKey({ name }: KeyCommands, id: string): Promise<never> {
  const { ClientError } = await import('../client/errors.js');
  throw new ClientError('NotFound', `There is no key ${id}.`, {
    wayOut: `See \`${name} list\` for the keys that there are.`,
  });
}
