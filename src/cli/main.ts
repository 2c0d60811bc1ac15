#!/usr/bin/env node
import { readFileSync } from 'node:fs';

import { Command, CommanderError } from 'commander';

/** A module of a command: it adds itself to the program. */
interface CommandModule {
  register(program: Command): void;
}

/** The commands in the order of `--help`; each file is read only when it is needed. */
const COMMANDS: Readonly<Record<string, () => Promise<CommandModule>>> = {
  setup: () => import('./setup.js'),
  doctor: () => import('./doctor.js'),
  demo: () => import('./demo.js'),
  up: () => import('./up.js'),
  down: () => import('./down.js'),
  ps: () => import('./ps.js'),
  validate: () => import('./validate.js'),
  run: () => import('./run.js'),
  submit: () => import('./submit.js'),
  watch: () => import('./watch.js'),
  status: () => import('./status.js'),
  list: () => import('./list.js'),
  results: () => import('./results.js'),
  verify: () => import('./verify.js'),
  gc: () => import('./gc.js'),
  pause: () => import('./steer.js'),
  resume: () => import('./steer.js'),
  drain: () => import('./steer.js'),
  cancel: () => import('./cancel.js'),
  'retry-failed': () => import('./retry-failed.js'),
  scale: () => import('./scale.js'),
  schedule: () => import('./schedule.js'),
  cluster: () => import('./cluster.js'),
  fleet: () => import('./fleet.js'),
  logs: () => import('./logs.js'),
  job: () => import('./job.js'),
  serve: () => import('./serve.js'),
  'codec-server': () => import('./codec-server.js'),
};

/** Commands that bring up infrastructure: an error that they do not name means that it is not there. */
const INFRASTRUCTURE: ReadonlySet<string> = new Set(['setup', 'up', 'down', 'demo']);

/** Builds the program with the command that is asked for, or with all when none is. */
async function buildProgram(name: string | undefined): Promise<Command> {
  const program = new Command('rankflow')
    .description('Durable offline LLM generation: Temporal workflows that run vLLM engines on Ray.')
    .version(version())
    // Or a command would take the options of its own commands that have the same name.
    .enablePositionalOptions()
    .exitOverride()
    .showHelpAfterError('(add --help for the options)');
  const one = name !== undefined && Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  const modules = await Promise.all((one ? [one] : Object.values(COMMANDS)).map((load) => load()));
  // Several commands may share a file.
  for (const module of new Set(modules)) module.register(program);
  return program;
}

function version(): string {
  const file = new URL('../../package.json', import.meta.url);
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
}

async function main(argv: readonly string[]): Promise<void> {
  // A reader that has enough, such as `head`, closes the pipe: that is no error.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0);
    throw error;
  });
  const name = argv[2];
  const json = argv.includes('--json');
  try {
    const program = await buildProgram(name);
    await program.parseAsync(argv);
  } catch (error) {
    // Asking for help is not an error.
    if (error instanceof CommanderError && error.exitCode === 0) return;
    const { asInfrastructure, asUsage, exitWith } = await import('./output.js');
    if (error instanceof CommanderError) {
      // Commander has told people already.
      if (json) exitWith(asUsage(error), json);
      process.exitCode = 2;
      return;
    }
    const cause = INFRASTRUCTURE.has(name ?? '') ? asInfrastructure(error) : error;
    exitWith(cause, json);
  }
}

await main(process.argv);
