import { lstatSync, realpathSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * Folders and prefixes of buckets, with commas between them, where inputs are read and outputs are written; everything
 * is allowed when it is not set. The setting of the process that touches a file counts. The twin of Python's
 * `rankflow/roots.py`.
 */
export const ROOTS = 'RANKFLOW_ALLOWED_ROOTS';

/** A location outside the roots. Its name is the type that workflows do not try again. */
export class PathRefused extends Error {
  override readonly name = 'PathRefused';
}

/**
 * The roots of this process; undefined when everything is allowed.
 *
 * @throws PathRefused for a root that is no absolute path and no bucket: better nothing than everything
 */
export function allowedRoots(text = process.env[ROOTS]): readonly string[] | undefined {
  const roots = (text ?? '').split(',').map((root) => root.trim());
  const named = roots.filter((root) => root !== '');
  for (const root of named) {
    const local = localPath(root);
    if (local === undefined ? segmentsOf(root) !== undefined : isPlain(local)) continue;
    throw new PathRefused(
      `${ROOTS} has ${root}, which is no absolute path without '..' and no bucket`,
    );
  }
  return named.length === 0 ? undefined : named;
}

/**
 * Refuses a location that is below none of the roots, `..`, and links that lead out.
 *
 * @param location an absolute path, a `file://` address or an address in a bucket
 * @throws PathRefused, naming the roots
 */
export function checkAllowed(location: string): void {
  const roots = allowedRoots();
  if (roots === undefined || roots.some((root) => isBelow(location, root))) return;
  throw new PathRefused(`${location} is not below an allowed root (${roots.join(', ')})`);
}

/** The location itself, when it is allowed. @throws PathRefused */
export function allowed(location: string): string {
  checkAllowed(location);
  return location;
}

function isBelow(location: string, root: string): boolean {
  const [here, there] = [localPath(location), localPath(root)];
  if (here === undefined || there === undefined) {
    const [inside, outside] = [segmentsOf(location), segmentsOf(root)];
    if (here !== there || inside === undefined || outside === undefined) return false;
    return outside.every((part, index) => part === inside[index]);
  }
  if (!isPlain(here)) return false;
  const [above, below] = [realPath(there), realPath(here)];
  if (above === undefined || below === undefined) return false;
  const relative = path.relative(above, below);
  return relative !== '..' && !relative.startsWith(`..${path.sep}`);
}

const isPlain = (file: string): boolean =>
  path.isAbsolute(file) && !file.includes('\0') && !file.split(path.sep).includes('..');

/** The path of a local location; undefined for an address of another kind. */
function localPath(location: string): string | undefined {
  const scheme = /^([^:/]+):\/\//u.exec(location)?.[1]?.toLowerCase();
  if (scheme === undefined) return location;
  if (scheme !== 'file') return undefined;
  // A URL has its `..` taken out before anybody sees it.
  if (/(?:^|\/)(?:\.|%2e){2}(?:\/|$)/iu.test(location)) return '..';
  try {
    return fileURLToPath(location);
  } catch {
    return '..';
  }
}

/**
 * Where a path leads: what is there of it is followed, also through links, and the rest is added; undefined when that
 * cannot be known.
 */
function realPath(file: string): string | undefined {
  const rest: string[] = [];
  for (let there = path.normalize(file); ; there = path.dirname(there)) {
    try {
      return path.join(realpathSync(there), ...rest);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      // A link that leads nowhere yet may lead anywhere tomorrow, and what may not be looked at is not known.
      if (code !== 'ENOENT' || isLink(there)) return undefined;
      rest.unshift(path.basename(there));
    }
  }
}

function isLink(file: string): boolean {
  return lstatSync(file, { throwIfNoEntry: false })?.isSymbolicLink() === true;
}

/** Scheme, bucket and the parts of the key; undefined when one of them could lead elsewhere. */
function segmentsOf(address: string): string[] | undefined {
  const [scheme = '', rest = ''] = address.split(/:\/\/(.*)/su);
  const parts = rest.replace(/\/+$/u, '').split('/');
  const leads = (part: string): boolean => {
    const name = decoded(part);
    // A parser of addresses drops what follows `?` and `#`, tabs, line ends and blanks around it.
    return ['', '.', '..'].includes(name.trim()) || /[/\\?#\p{Cc}]/u.test(name);
  };
  return parts.some(leads) ? undefined : [scheme.toLowerCase(), ...parts];
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
