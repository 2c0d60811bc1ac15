import type { HostFinding, HostReport } from './facts.js';

/** A finding in one line: what, what was found where, and the way out. */
export function findingText({ what, found, mend }: HostFinding): string {
  const values = Object.entries(found).map(([where, value]) => `${where}: ${value}`);
  return `${what}: ${values.join('; ')}. ${mend}`;
}

const refusing = (findings: readonly HostFinding[]): HostFinding[] =>
  findings.filter(({ severity }) => severity === 'refuses');

/** All that refuses, a line each. */
export const refusalText = ({ findings }: HostReport): string =>
  refusing(findings).map(findingText).join('\n');

/**
 * Which hosts are not fit, each with what refuses it. Of two hosts that do not reach each other one is named, and the
 * head only when there is nobody else: a spare can take the place of a worker.
 *
 * @param head name of the head
 */
export function unfitHosts(
  findings: readonly HostFinding[],
  head: string,
): ReadonlyMap<string, readonly HostFinding[]> {
  const unfit = new Map<string, HostFinding[]>();
  for (const finding of refusing(findings)) {
    const { what, hosts } = finding;
    const one =
      hosts.find((name) => unfit.has(name)) ?? hosts.find((name) => name !== head) ?? head;
    for (const name of what === 'reach' ? [one] : hosts) {
      unfit.set(name, [...(unfit.get(name) ?? []), finding]);
    }
  }
  return unfit;
}
