import { createHash, randomBytes } from 'node:crypto';

/** Kinds of objects and how their ids look: 12 hex digits of milliseconds since the epoch, then 20 of chance. */
const FORMS = {
  file: { prefix: 'file-', form: /^file-[0-9a-f]{32}$/u },
  batch: { prefix: 'batch_', form: /^batch_[0-9a-f]{32}$/u },
} as const;

export type IdKind = keyof typeof FORMS;

let last = 0;

/** A fresh id. Ids sort by the time of their making, also those that one process makes in one millisecond. */
export function newId(kind: IdKind, now: number): string {
  last = Math.max(now, last + 1);
  return idAt(kind, last, randomBytes(10).toString('hex'));
}

/** The id of what `parts` name at a known time: whoever makes it makes the same one. */
export function derivedId(kind: IdKind, at: number, ...parts: readonly string[]): string {
  const hash = createHash('sha256').update(parts.join('\0')).digest('hex');
  return idAt(kind, Math.floor(at), hash.slice(0, 20));
}

/** Whether a text from outside is an id; only then may it become part of a path. */
export const isId = (kind: IdKind, text: string): boolean => FORMS[kind].form.test(text);

/** Milliseconds since the epoch at which an id was made. */
export const timeOfId = (id: string): number => Number.parseInt(id.slice(-32, -20), 16);

const idAt = (kind: IdKind, at: number, tail: string): string =>
  `${FORMS[kind].prefix}${at.toString(16).padStart(12, '0')}${tail}`;
