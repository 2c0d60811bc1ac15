/**
 * The closed set of error types, the same names in Python (`rankflow.contracts.errors`). They travel as the
 * `type` of a Temporal `ApplicationFailure`.
 */
export interface ErrorKind {
  /** Whether Temporal should try the activity again. */
  readonly retryable: boolean;
  /** What the user can do, one sentence. */
  readonly wayOut: string;
}

export const ERRORS = {
  InvalidRequest: {
    retryable: false,
    wayOut: 'Correct the value that the message names.',
  },
  InvalidInput: {
    retryable: false,
    wayOut: 'Mend the lines listed, or run with --on-invalid record to write them as error lines.',
  },
  RunMismatch: {
    retryable: false,
    wayOut: 'Use another --run-id, or --new to start a fresh run with these parameters.',
  },
  ClusterMismatch: {
    retryable: false,
    wayOut:
      'Ask for what is up, stop it (`rankflow cluster down`, `rankflow fleet stop`), or name another one.',
  },
  ImpossibleResources: {
    retryable: false,
    wayOut:
      'Ask for fewer engines or smaller ones, add nodes to the cluster, or stop a fleet whose engines are larger.',
  },
  EngineArgumentsInvalid: {
    retryable: false,
    wayOut: 'Correct the model or engine arguments named in the message.',
  },
  EngineLoadFailed: {
    retryable: false,
    wayOut: 'Read the engine log named in the message; check model path, memory and dtype.',
  },
  ModelMismatch: {
    retryable: false,
    wayOut:
      'The fleet serves another model than the run was planned for: use another --fleet name.',
  },
  PlanCorrupt: {
    retryable: false,
    wayOut: 'The stored plan or its requests were changed; start over with --new.',
  },
  NoResults: {
    retryable: false,
    wayOut: 'See `rankflow status` for how far the run is; `rankflow watch` waits for its end.',
  },
  UnsupportedInput: {
    retryable: false,
    wayOut: 'Use OpenAI Batch JSONL, simple JSONL, CSV or Parquet, on a file:// or s3:// address.',
  },
  InputMissing: {
    // While a schedule waits for its input.
    retryable: true,
    wayOut: 'Put the input where the schedule looks for it, then trigger or backfill the schedule.',
  },
  ClusterMissing: {
    // While a scheduled run or a batch waits for its cluster.
    retryable: true,
    wayOut:
      'Bring the cluster up with `rankflow cluster up`; a batch begins then, a schedule is triggered or backfilled.',
  },
  KeyMismatch: {
    retryable: false,
    wayOut:
      'Give every process that speaks to Temporal a file with the same keys, named by RANKFLOW_ENCRYPTION_KEY_FILE (docs/security.md).',
  },
  PathRefused: {
    retryable: false,
    wayOut:
      'Use a path below one of the roots that the message names, or add one to RANKFLOW_ALLOWED_ROOTS of the workers.',
  },
  EngineGone: { retryable: true, wayOut: 'Nothing to do: the batch is tried again elsewhere.' },
  LeaseLost: { retryable: true, wayOut: 'Nothing to do: another attempt owns this batch.' },
  SuspectBatch: {
    retryable: false,
    wayOut: 'Nothing to do: the batch is tried again on an engine that it has for itself.',
  },
  TooManyEngineDeaths: {
    retryable: false,
    wayOut:
      'Read the logs of the engines that died and mend model, memory or arguments; then run the same command again, which continues.',
  },
  StoreUnavailable: {
    retryable: true,
    wayOut: 'Check that the store is reachable and may be written to; work goes on by itself.',
  },
  StoreFull: {
    // Not by Temporal: the workflow pauses, looks whether there is room again, and goes on.
    retryable: false,
    wayOut: 'Free some space in the store or raise its quota; the run goes on by itself.',
  },
  UnsupportedStore: {
    retryable: false,
    wayOut: 'Use a folder, or a bucket whose server supports conditional puts (If-None-Match: *).',
  },
  StoreNotShared: {
    retryable: false,
    wayOut:
      'Mount one shared folder there on every host (NFS, CephFS, …), or use a bucket: --store s3://bucket/prefix. `rankflow doctor --cluster FILE --store STORE` looks again.',
  },
  ClusterUnavailable: {
    retryable: true,
    wayOut: 'See `rankflow cluster status`; the cluster is brought up again by itself.',
  },
  JobFailed: {
    retryable: false,
    wayOut: 'Read the log (`rankflow job logs`), mend the script and submit it again.',
  },
  JobLost: {
    retryable: false,
    wayOut:
      'See `rankflow cluster status` for why nodes are lost; submitting the same job again goes on from its checkpoints.',
  },
  JobTimedOut: {
    retryable: false,
    wayOut: 'Submit it again with a longer --timeout: it goes on from its checkpoints.',
  },
  JobRefused: {
    retryable: false,
    wayOut: 'Correct the option or the runtime environment that the message names.',
  },
  ClusterStartFailed: {
    retryable: false,
    wayOut: 'Mend what the message names, then run `rankflow cluster up` again.',
  },
  HostUnreachable: {
    retryable: true,
    wayOut: 'Check that the machine is up, its address and port, and the firewall in between.',
  },
  HostTimedOut: {
    retryable: true,
    wayOut: 'See whether the host is overloaded, or its disk or network hangs.',
  },
  HostKeyRefused: {
    retryable: false,
    wayOut: "Compare the fingerprint of the host's key, then add it to the cluster's known hosts.",
  },
  HostAccessDenied: {
    retryable: false,
    wayOut: 'Add the public key to ~/.ssh/authorized_keys of the user on that host.',
  },
  HostRefused: {
    retryable: false,
    wayOut: 'Mend on the host what the message names, then run `rankflow cluster up` again.',
  },
} as const satisfies Record<string, ErrorKind>;

export type ErrorType = keyof typeof ERRORS;

/** Error types that must not be retried, for `RetryPolicy.nonRetryableErrorTypes`. */
export const NON_RETRYABLE: readonly ErrorType[] = (Object.keys(ERRORS) as ErrorType[]).filter(
  (type) => !ERRORS[type].retryable,
);
