import type { Fingerprint, Listening, ReachOutcome, StoreTrip } from '../../contracts/hosts.js';

/** What a machine does for its cluster. `control`: the workers of Rankflow run there, no Ray node. */
export type HostRole = 'head' | 'worker' | 'control';

/** Bounds of how much a host's clock is ahead of this machine's, in seconds. */
export interface ClockBounds {
  readonly least: number;
  readonly most: number;
}

/** What was found out about one host. */
export interface HostFacts {
  readonly name: string;
  readonly role: HostRole;
  /** Whether engines may be placed there. */
  readonly engines: boolean;
  /** Where other nodes reach it. */
  readonly address: string;
  readonly fingerprint?: Fingerprint;
  readonly clock?: ClockBounds;
  /**
   * Another Python than the environment's answered. `later`: the environment is made with the cluster, and takes
   * `room` bytes at least in the folder `environments`.
   */
  readonly noEnvironment?: {
    readonly reason: string;
    readonly later: boolean;
    readonly room?: number;
  };
  /** Rankflow's Python files are copied when the node is made. */
  readonly packageLater?: boolean;
  /** Why nothing could be found out. */
  readonly problem?: { readonly message: string; readonly mend: string };
}

/** A port that somebody has to reach. */
export interface PortToReach {
  /** What is there, such as `GCS`. */
  readonly what: string;
  /** 0: any port, as where Ray chooses a free one. */
  readonly port: number;
  /** Who listens. */
  readonly on: 'head' | 'nodes';
  /** Who connects, where not all do. */
  readonly from?: HostRole;
  /** Whether a cluster works without it. */
  readonly optional?: boolean;
}

/** One try of one host to reach a port of another, or of a service such as Temporal. */
export interface ReachCell {
  readonly from: string;
  /** A host, or `Temporal`. */
  readonly to: string;
  readonly what: string;
  readonly address: string;
  readonly port: number;
  readonly outcome: ReachOutcome;
  readonly milliseconds?: number;
  readonly optional?: boolean;
}

/** A port that could not be listened on. */
export interface ClosedPort {
  readonly host: string;
  readonly what: string;
  readonly port: number;
  readonly problem: NonNullable<Listening['problem']>;
  /** It may be the cluster itself that has it. */
  readonly maybeOwn?: boolean;
}

/** What hosts found of the tokens in the store. */
export interface StoreFacts {
  readonly store: string;
  readonly trips: Readonly<Record<string, StoreTrip>>;
  /** Hosts whose environment is still to be made: without it nobody can look. */
  readonly notAsked: readonly string[];
}

/** Something that is not well, with the way to mend it. */
export interface HostFinding {
  /** What was looked at, such as `Ray` or `clock`. */
  readonly what: string;
  /** `refuses`: a cluster would not come up, or would answer wrongly. */
  readonly severity: 'refuses' | 'warns';
  /** Hosts to be mended, the one that it is most likely first. */
  readonly hosts: readonly string[];
  /** What was found, by host or by `from → to`. */
  readonly found: Readonly<Record<string, string>>;
  readonly mend: string;
}

/** All that `rankflow doctor --cluster` shows. */
export interface HostReport {
  readonly hosts: readonly HostFacts[];
  readonly reach: readonly ReachCell[];
  readonly store?: StoreFacts;
  readonly findings: readonly HostFinding[];
  /** Whether a finding refuses. */
  readonly refused: boolean;
}
