import { readFileSync } from 'node:fs';
import path from 'node:path';

import { parse } from 'yaml';

import { paths } from '../../src/setup/paths.js';

/** A service of `docker-compose.yml` as it is written there, with its anchors resolved. */
export interface ComposeService {
  readonly image: string;
  readonly build?: { readonly context: string; readonly target: string };
  readonly profiles?: readonly string[];
  readonly user?: string;
  readonly init?: boolean;
  readonly restart?: string;
  readonly entrypoint?: readonly string[];
  readonly command?: string | readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly depends_on?: Readonly<Record<string, { readonly condition: string }>>;
  readonly secrets?: readonly string[];
  readonly configs?: readonly { readonly source: string; readonly target: string }[];
  readonly volumes?: readonly string[];
  readonly networks: readonly string[] | Readonly<Record<string, { aliases: string[] }>>;
  readonly ports?: readonly string[];
  readonly stop_grace_period?: string;
  readonly security_opt?: readonly string[];
  readonly cap_drop?: readonly string[];
  readonly logging?: { readonly options: Readonly<Record<string, string>> };
  readonly healthcheck?: {
    readonly test: readonly string[];
    readonly start_period?: string;
  };
  readonly deploy?: {
    readonly resources: {
      readonly reservations?: { readonly devices: readonly { readonly capabilities: string[] }[] };
    };
  };
}

export interface Compose {
  readonly name: string;
  readonly services: Readonly<Record<string, ComposeService>>;
  readonly networks: Readonly<Record<string, { readonly internal?: boolean } | null>>;
  readonly volumes: Readonly<Record<string, unknown>>;
  readonly secrets: Readonly<Record<string, { readonly file: string }>>;
  readonly configs: Readonly<Record<string, { readonly file: string }>>;
}

export const composeFile = path.join(paths.packageRoot, 'docker-compose.yml');
export const composeText = readFileSync(composeFile, 'utf8');

/** `docker-compose.yml` with its anchors resolved and its variables as they are. */
export const readCompose = (): Compose => parse(composeText, { merge: true }) as Compose;

/** A value with its variables at their defaults; what has none is `named`. */
export const interpolated = (text: string): string =>
  text.replaceAll(
    /\$\{\w+(?::(?<kind>[-?])(?<rest>[^}]*))?\}/gu,
    (_whole, kind: string | undefined, rest: string | undefined) =>
      kind === '-' ? (rest ?? '') : 'named',
  );

/** What a service runs, word by word, with variables at their defaults. */
export function wordsOf({ command = [] }: ComposeService): string[] {
  const words = typeof command === 'string' ? interpolated(command).split(/\s+/u) : [...command];
  return words.map(interpolated).filter((word) => word !== '');
}

/** The commands that the comment at the beginning of the file tells, one a line. */
export const documentedCommands = (): string[] =>
  composeText
    .slice(0, composeText.indexOf('\nname:'))
    .replaceAll(/\\\n#\s*/gu, '')
    .split('\n')
    .flatMap((line) => {
      const told = /^# {3}(?<command>\S.*)$/u.exec(line)?.groups?.['command'];
      return told === undefined ? [] : [told.replace(/\s+#.*$/u, '')];
    });
