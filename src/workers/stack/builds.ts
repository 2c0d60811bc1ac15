/**
 * Copies of the builds that a stack has run. A package manager replaces a package in its place while runs go on, and a
 * worker that is started again has to be of the build that its workflows are pinned to.
 */
import {
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';

import { z } from 'zod';

import { KEPT, paths } from '../../setup/paths.js';
import type { Build } from '../build.js';

const folder = path.join(paths.home, 'builds');

/** Folder of a kept build: as a package's, without what its control worker does not need. */
export const buildFolder = (id: string): string => path.join(folder, id);

/** Ids of the builds that are kept. */
export function keptBuilds(): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((name) => !name.startsWith('.'))
    .toSorted();
}

/** Copies the calling package's code, unless that is done. In one step: half a copy is none. */
export function keepBuild({ id }: Build): void {
  const target = buildFolder(id);
  if (existsSync(target)) {
    if (existsSync(packageOf(target))) return;
    // The package was moved: the links of its copy lead nowhere.
    forgetBuild(id);
  }
  const temporary = path.join(folder, `.${id}.${process.pid}`);
  rmSync(temporary, { recursive: true, force: true });
  mkdirSync(path.join(temporary, 'node_modules'), { recursive: true });
  const manifest = path.join(paths.packageRoot, 'package.json');
  cpSync(manifest, path.join(temporary, 'package.json'));
  cpSync(path.join(paths.packageRoot, 'dist'), path.join(temporary, 'dist'), { recursive: true });
  const { dependencies } = z
    .object({ dependencies: z.record(z.string(), z.string()) })
    .parse(JSON.parse(readFileSync(manifest, 'utf8')));
  for (const name of Object.keys(dependencies)) link(name, temporary);
  const { packageRoot } = paths;
  writeFileSync(path.join(temporary, KEPT), JSON.stringify({ packageRoot, build: id }));
  renameSync(temporary, target);
}

/** Folder of the package that a copy was made of. */
function packageOf(copy: string): string {
  const kept = z.object({ packageRoot: z.string() });
  return kept.parse(JSON.parse(readFileSync(path.join(copy, KEPT), 'utf8'))).packageRoot;
}

/** Libraries stay where they are: Node takes what a link leads to, with what is beside it there. */
function link(dependency: string, into: string): void {
  for (let at = paths.packageRoot; ; at = path.dirname(at)) {
    const source = path.join(at, 'node_modules', dependency);
    if (existsSync(source)) {
      const name = path.join(into, 'node_modules', dependency);
      mkdirSync(path.dirname(name), { recursive: true });
      symlinkSync(source, name, 'dir');
      return;
    }
    if (at === path.dirname(at)) throw new Error(`The package ${dependency} is not installed.`);
  }
}

export function forgetBuild(id: string): void {
  rmSync(buildFolder(id), { recursive: true, force: true });
}
