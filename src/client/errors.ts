import type { InputProblem } from '../contracts/run.js';
import { ERRORS, type ErrorType } from '../contracts/errors.js';

/**
 * Kinds of trouble a client can meet: the closed set of the contract, and what only a client sees.
 * `Usage`: the arguments are wrong. `Unreachable`: Temporal does not answer. `NotFound`: no such run, fleet or
 * cluster. `Cancelled` and `Terminated`: how a workflow ended. `Internal`: anything else, a bug included.
 */
export type FailureType =
  ErrorType | 'Usage' | 'Unreachable' | 'NotFound' | 'Cancelled' | 'Terminated' | 'Internal';

/** Exit codes of the command line. */
export const EXIT = {
  ok: 0,
  /** Rows failed, or the run itself did. */
  failed: 1,
  /** Bad input or usage: nothing was generated. */
  usage: 2,
  /** Temporal, Ray or the store cannot be reached or started. */
  unreachable: 3,
  /** Ctrl-C: the run goes on. */
  interrupted: 130,
} as const;

const EXIT_CODES: Readonly<Record<FailureType, number>> = {
  InvalidRequest: EXIT.usage,
  InvalidInput: EXIT.usage,
  RunMismatch: EXIT.usage,
  ClusterMismatch: EXIT.usage,
  ImpossibleResources: EXIT.usage,
  EngineArgumentsInvalid: EXIT.usage,
  ModelMismatch: EXIT.usage,
  UnsupportedInput: EXIT.usage,
  NoResults: EXIT.usage,
  Usage: EXIT.usage,
  NotFound: EXIT.usage,
  StoreUnavailable: EXIT.unreachable,
  StoreFull: EXIT.unreachable,
  UnsupportedStore: EXIT.usage,
  StoreNotShared: EXIT.usage,
  ClusterUnavailable: EXIT.unreachable,
  ClusterStartFailed: EXIT.unreachable,
  HostUnreachable: EXIT.unreachable,
  HostTimedOut: EXIT.unreachable,
  HostKeyRefused: EXIT.unreachable,
  HostAccessDenied: EXIT.unreachable,
  HostRefused: EXIT.unreachable,
  Unreachable: EXIT.unreachable,
  EngineLoadFailed: EXIT.failed,
  PlanCorrupt: EXIT.failed,
  InputMissing: EXIT.usage,
  ClusterMissing: EXIT.unreachable,
  KeyMismatch: EXIT.usage,
  PathRefused: EXIT.usage,
  EngineGone: EXIT.failed,
  LeaseLost: EXIT.failed,
  SuspectBatch: EXIT.failed,
  TooManyEngineDeaths: EXIT.failed,
  JobFailed: EXIT.failed,
  JobLost: EXIT.failed,
  JobTimedOut: EXIT.failed,
  JobRefused: EXIT.usage,
  Cancelled: EXIT.failed,
  Terminated: EXIT.failed,
  Internal: EXIT.failed,
};

/** One failure as it is shown to people and printed as JSON. */
export interface Failure {
  readonly type: FailureType;
  readonly message: string;
  /** What the user can do, one sentence. */
  readonly wayOut?: string;
  /** What is wrong with which line of the input; at most the first ones of `totalProblems`. */
  readonly problems: readonly InputProblem[];
  readonly totalProblems: number;
  readonly exitCode: number;
}

export interface ClientErrorOptions {
  readonly wayOut?: string | undefined;
  readonly problems?: readonly InputProblem[];
  readonly totalProblems?: number;
  readonly cause?: unknown;
}

/** What the functions of the client throw when they know what went wrong. */
export class ClientError extends Error {
  override readonly name = 'ClientError';
  readonly wayOut: string | undefined;
  readonly problems: readonly InputProblem[];
  readonly totalProblems: number;

  constructor(
    readonly type: FailureType,
    message: string,
    options: ClientErrorOptions = {},
  ) {
    super(message, { cause: options.cause });
    this.problems = options.problems ?? [];
    this.wayOut = options.wayOut ?? wayOutOf(type, this.problems);
    this.totalProblems = options.totalProblems ?? this.problems.length;
  }
}

/** Whether a name is one of the contract's error types. */
export function isErrorType(type: unknown): type is ErrorType {
  return typeof type === 'string' && Object.hasOwn(ERRORS, type);
}

/** What helps against problems of the input as a whole (line 0): recording lines as errors does not. */
const WHOLE_INPUT_WAY_OUT = 'Correct the file, or the option that the message names.';

function wayOutOf(type: FailureType, problems: readonly InputProblem[] = []): string | undefined {
  const whole = problems.length > 0 && problems.every(({ line }) => line === 0);
  if (type === 'InvalidInput' && whole) return WHOLE_INPUT_WAY_OUT;
  if (isErrorType(type)) return ERRORS[type].wayOut;
  if (type === 'Unreachable')
    return 'Start the local stack with `rankflow up`, or set TEMPORAL_ADDRESS.';
  return undefined;
}

/**
 * Turns whatever was thrown into one failure. Understands {@link ClientError}, Temporal's failures (the
 * innermost error of the closed set wins, so that wrappers hide nothing) and gRPC errors.
 */
export function describeFailure(error: unknown): Failure {
  const chain = causes(error);
  for (const link of chain) {
    if (link instanceof ClientError) {
      return failure(link.type, link.message, link.problems, link.totalProblems, link.wayOut);
    }
  }
  for (const link of chain.toReversed()) {
    const type = field(link, 'type');
    // What knows no client: payloads and paths are looked at everywhere.
    if (link.name === 'KeyMismatch' || link.name === 'PathRefused')
      return failure(link.name, link.message);
    if (link.name === 'ApplicationFailure' && isErrorType(type)) {
      const { problems, total } = problemsOf(link);
      return failure(type, link.message, problems, total, wayOutIn(link));
    }
  }
  return describeUnknown(chain, error);
}

function describeUnknown(chain: readonly Error[], error: unknown): Failure {
  const names = new Set(chain.map((link) => link.name));
  const message = chain.map((link) => link.message).find((text) => text !== '') ?? String(error);
  if (names.has('WorkflowNotFoundError')) return failure('NotFound', message);
  if (chain.some(isUnreachable))
    return failure('Unreachable', `Temporal does not answer: ${message}`);
  if (names.has('TerminatedFailure')) return failure('Terminated', 'The workflow was terminated.');
  if (names.has('CancelledFailure')) return failure('Cancelled', 'The run was cancelled.');
  const inner = chain.toReversed().find((link) => link.message !== '');
  return failure('Internal', inner?.message ?? message);
}

function failure(
  type: FailureType,
  message: string,
  problems: readonly InputProblem[] = [],
  totalProblems = problems.length,
  wayOut = wayOutOf(type, problems),
): Failure {
  const exitCode = EXIT_CODES[type];
  return { type, message, problems, totalProblems, exitCode, ...(wayOut && { wayOut }) };
}

/** The error and its causes, outermost first; bounded, as a cause may be its own ancestor. */
function causes(error: unknown): Error[] {
  const chain: Error[] = [];
  let current = error;
  while (current instanceof Error && chain.length < 32) {
    chain.push(current);
    current = current.cause;
  }
  return chain;
}

function field(error: Error, name: string): unknown {
  return (error as unknown as Record<string, unknown>)[name];
}

/** gRPC codes 4 (deadline exceeded) and 14 (unavailable). */
function isUnreachable(error: Error): boolean {
  const code = field(error, 'code');
  return code === 14 || code === 4 || /Failed to connect before the deadline/u.test(error.message);
}

/** gRPC codes that another try does not change: not found, permission denied, unauthenticated. */
const LASTING_CODES: ReadonlySet<unknown> = new Set([5, 7, 16]);

/**
 * Whether another try a little later may work: the server or a worker is away, or a workflow is too young to be
 * asked. A bug in this program is not.
 */
export function isTransient(error: unknown): boolean {
  return causes(error).some((link) => {
    if (link.name === 'QueryNotRegisteredError') return true;
    const code = field(link, 'code');
    return typeof code === 'number' && !LASTING_CODES.has(code);
  });
}

function firstDetail(error: Error): unknown {
  const details = field(error, 'details');
  return Array.isArray(details) ? details[0] : undefined;
}

/** A way out of this very failure, which a workflow attached; undefined where its type says all there is to say. */
function wayOutIn(error: Error): string | undefined {
  const wayOut = (firstDetail(error) as { wayOut?: unknown } | null | undefined)?.wayOut;
  return typeof wayOut === 'string' ? wayOut : undefined;
}

const problemsOf = (error: Error): { problems: readonly InputProblem[]; total: number } =>
  readProblems(firstDetail(error));

/** Reads `{problems, total}`, as the planner attaches it to `InvalidInput`; anything else has none. */
export function readProblems(details: unknown): {
  problems: readonly InputProblem[];
  total: number;
} {
  if (typeof details !== 'object' || details === null) return { problems: [], total: 0 };
  const { problems, total } = details as { problems?: unknown; total?: unknown };
  const list = Array.isArray(problems) ? problems.filter(isProblem) : [];
  return { problems: list, total: typeof total === 'number' ? total : list.length };
}

function isProblem(value: unknown): value is InputProblem {
  const problem = value as Partial<InputProblem> | null;
  return typeof problem?.line === 'number' && typeof problem.message === 'string';
}
