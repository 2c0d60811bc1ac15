import { examineConditions } from './alike/condition.js';
import type { HostFinding, HostReport, HostRole, PortToReach } from './alike/facts.js';
import { judgeReach } from './alike/reach.js';
import { judgeStore } from './alike/store.js';
import { compareVersions, type VersionRules } from './alike/versions.js';
import { exploreReach, type Running } from './matrix.js';
import { askHost, type Able, type InspectedHost } from './respondent.js';
import { tripStore } from './trip.js';

export type { InspectedHost } from './respondent.js';

export interface InspectOptions {
  readonly ports: readonly PortToReach[];
  readonly running?: Running;
  /** Address of the Temporal service, as the nodes get it. */
  readonly temporal?: string | undefined;
  readonly store?: string | undefined;
  /** Settings and credentials of the store: they go to hosts over standard input only. */
  readonly storeEnvironment?: Readonly<Record<string, string>>;
  readonly rules?: Partial<VersionRules>;
  readonly signal?: AbortSignal;
}

/**
 * Looks at all hosts of a cluster: what each is, whether they are alike, who reaches whom, and whether they share
 * the store. Starts nothing that stays, and leaves nothing behind. A host that does not answer is a finding.
 *
 * @param hosts in any order; names are unique
 */
export async function inspectHosts(
  hosts: readonly InspectedHost[],
  options: InspectOptions,
): Promise<HostReport> {
  const ordered = hosts.toSorted((a, b) => rank(a.role) - rank(b.role));
  const asked = await Promise.all(ordered.map((host) => askHost(host, options.signal)));
  const facts = asked.map((one) => one.facts);
  const able = asked.filter((one): one is Able => one.python !== undefined);
  // One after the other: what loads the hosts would spoil the time-outs of the other.
  const matrix = await exploreReach(able, options);
  const store =
    options.store === undefined
      ? undefined
      : await tripStore(able, options.store, options.storeEnvironment);
  const rules = { engine: 'vllm', pythonMatch: 'patch', ...options.rules } as const;
  const findings: HostFinding[] = [
    ...examineConditions(facts),
    ...compareVersions(facts, rules),
    ...matrix.problems,
    ...judgeReach(facts, matrix.cells, matrix.closed),
    ...(store === undefined ? [] : judgeStore(store)),
  ];
  return {
    hosts: facts,
    reach: matrix.cells,
    ...(store !== undefined && { store }),
    findings: findings.toSorted((a, b) => weight(a) - weight(b)),
    refused: findings.some(({ severity }) => severity === 'refuses'),
  };
}

const ROLES: readonly HostRole[] = ['head', 'worker', 'control'];
const rank = (role: HostRole): number => ROLES.indexOf(role);
const weight = ({ severity }: HostFinding): number => (severity === 'refuses' ? 0 : 1);
