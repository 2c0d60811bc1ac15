/** A released version: major, minor, patch. */
export type Version = readonly [major: number, minor: number, patch: number];

/** First `x.y` or `x.y.z` in what a program printed for `--version`; undefined when there is none. */
export function parseVersion(text: string): Version | undefined {
  const match = /(?<![\d.])(\d+)\.(\d+)(?:\.(\d+))?/u.exec(text);
  if (match === null) return undefined;
  return [Number(match[1]), Number(match[2]), Number(match[3] ?? 0)];
}

/** Whether `version` is `least` or newer. */
export function atLeast(version: Version, least: Version): boolean {
  for (const [index, part] of version.entries()) {
    const wanted = least[index] ?? 0;
    if (part !== wanted) return part > wanted;
  }
  return true;
}

export const formatVersion = (version: Version): string => version.join('.');
