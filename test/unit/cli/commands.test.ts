import { readdirSync } from 'node:fs';
import path from 'node:path';

import { Command } from 'commander';
import { beforeAll, expect, test } from 'vitest';

import { paths } from '../../../src/setup/paths.js';

interface CommandModule {
  readonly register?: (program: Command) => void;
}

const folder = path.join(paths.packageRoot, 'src/cli');
const program = new Command();

beforeAll(async () => {
  // Not the main program: it runs when it is read.
  const files = readdirSync(folder).filter((file) => file.endsWith('.ts') && file !== 'main.ts');
  for (const file of files) {
    const module = (await import(path.join(folder, file))) as CommandModule;
    module.register?.(program);
  }
});

const leavesOf = (command: Command): Command[] =>
  command.commands.length === 0 ? [command] : command.commands.flatMap(leavesOf);

test('every command has --json and says what it does', () => {
  const leaves = leavesOf(program);
  expect(leaves.length).toBeGreaterThan(18);
  for (const command of leaves) {
    const name = `${command.parent?.name()} ${command.name()}`;
    expect(
      command.options.map(({ long }) => long),
      name,
    ).toContain('--json');
    expect(command.description(), name).not.toBe('');
    for (const option of command.options) {
      expect(option.description, `${name} ${option.flags}`).not.toBe('');
    }
  }
});
