import {
  ActivityCancellationType,
  ActivityFailure,
  ApplicationFailure,
  CancellationScope,
  condition,
  defineQuery,
  defineSignal,
  isCancellation,
  log,
  patched,
  proxyActivities,
  setCurrentDetails,
  setHandler,
  sleep,
  workflowInfo,
} from '@temporalio/workflow';

import type { ControlActivities } from '../contracts/activities.js';
import type { ClusterAddress } from '../contracts/cluster.js';
import type {
  AttemptOutcome,
  AttemptStatus,
  FollowJobInput,
  JobActivities,
  JobResult,
  JobState,
  JobStatus,
  JobWorkflowInput,
} from '../contracts/job.js';
import { CONTROL_QUEUE, QUERY, SIGNAL, submissionIdOf } from '../contracts/names.js';
import type { Problem } from '../contracts/workflows.js';
import { Attributes } from './attributes.js';
import { problemOf, workflowFailure } from './failures.js';
import { jobDetails } from './job-details.js';
import { count, judge, planNext, type JobCounts, type Verdict } from './job-plan.js';
import { A_FEW_TRIES, UNTIL_DONE } from './options.js';
import { checkStoreShared } from './shared-store.js';

export const jobStatusQuery = defineQuery<JobStatus>(QUERY.status);
export const stopJobSignal = defineSignal(SIGNAL.stopJob);

const entities = proxyActivities<Pick<ControlActivities, 'ensureCluster'>>({
  taskQueue: CONTROL_QUEUE,
  // Waits for nodes to join, which may install an environment for an hour, or for a head that comes back.
  startToCloseTimeout: '12 hours',
  // It heartbeats every 5 s while it waits, so that a control worker that went away is noticed.
  heartbeatTimeout: '30 seconds',
  // Refusals are final; anything else passes, as the cluster repairs itself.
  retry: UNTIL_DONE,
  // Giving back must not overtake a claim that is still on its way.
  cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
});

const release = proxyActivities<Pick<ControlActivities, 'stopCluster'>>({
  taskQueue: CONTROL_QUEUE,
  // Nodes end within a grace period of seconds each.
  startToCloseTimeout: '10 minutes',
  heartbeatTimeout: '30 seconds',
  // What cannot be taken down must not hide the result of the job.
  retry: A_FEW_TRIES,
});

const store = proxyActivities<Pick<JobActivities, 'openJob'>>({
  taskQueue: CONTROL_QUEUE,
  // Makes and lists small folders; a minute is for a store that is slow.
  startToCloseTimeout: '1 minute',
  // Without the store there is no log and no checkpoint.
  retry: UNTIL_DONE,
});

const submitting = proxyActivities<Pick<JobActivities, 'submitJob' | 'endJob'>>({
  taskQueue: CONTROL_QUEUE,
  // A package of 500 MB on a slow line; ending waits for the grace period, five minutes at most.
  startToCloseTimeout: '10 minutes',
  // Both heartbeat every few seconds.
  heartbeatTimeout: '30 seconds',
  // A cluster that does not answer three times is asked for anew: its address may be another one.
  retry: A_FEW_TRIES,
  // Whoever ends a job has to know whether it was submitted.
  cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
});

const following = proxyActivities<Pick<JobActivities, 'followJob'>>({
  taskQueue: CONTROL_QUEUE,
  // As long as the job runs. When this is over it is only followed anew.
  startToCloseTimeout: '30 days',
  // It heartbeats with each look, every second or two: a control worker that was restarted takes over soon.
  heartbeatTimeout: '30 seconds',
  // Losing sight of the cluster is a result; an error is the store's, and logs must be kept.
  retry: UNTIL_DONE,
});

/** Time for the last lines of a job that was told to stop. */
const LAST_LINES = '30 seconds';

/** A Ray job that is tracked, logged, and started again when something below it is lost. */
export async function jobWorkflow({ spec }: JobWorkflowInput): Promise<JobResult> {
  const { jobId, cluster } = spec;
  // The same after a relaunch, so that what an earlier try left behind is still ours to give back.
  const user = workflowInfo().workflowId;
  // None where the job was started without, or by a build that did not set them: so histories of before replay.
  const attributes = new Attributes('attributes-of-jobs');
  const work = new CancellationScope();
  const clock = new CancellationScope();
  let state: JobState = 'preparing';
  let attempts: readonly AttemptStatus[] = [];
  let verdict: Verdict | undefined;
  let problem: Problem | undefined;
  let claimed = false;
  let ending: 'stopped' | 'timed_out' | undefined;

  const status = (): JobStatus => ({
    jobId,
    state,
    entrypoint: spec.entrypoint,
    cluster: cluster.name,
    attempts,
    ...(verdict?.kind === 'succeeded' && verdict.result && { result: verdict.result }),
    ...(problem && { problem }),
  });
  const enter = (next: JobState): void => {
    state = next;
    attributes.set({ state });
    setCurrentDetails(jobDetails(status()));
  };
  const setAttempt = (change: Partial<AttemptStatus>): void => {
    const last = attempts.at(-1);
    if (last !== undefined) attempts = [...attempts.slice(0, -1), { ...last, ...change }];
  };
  /** The compiler does not see that a signal or the clock may have changed it meanwhile. */
  const isEnding = (): boolean => ending !== undefined;
  const end = (how: 'stopped' | 'timed_out'): void => {
    if (ending !== undefined) return;
    ending = how;
    enter('stopping');
    work.cancel();
  };

  setHandler(jobStatusQuery, status);
  setHandler(stopJobSignal, () => end('stopped'));
  enter('preparing');

  const ensure = async (): Promise<ClusterAddress> => {
    claimed = true;
    const options = { summary: `Have Ray cluster ${cluster.name} up` };
    const request = { spec: cluster, user, keep: spec.keep };
    return (await entities.ensureCluster.executeWithOptions(options, [request])).address;
  };

  /** Whatever happens to the cluster, a job that is to end is not held up by it. */
  const endAttempt = async (attempt: number, address: ClusterAddress): Promise<void> => {
    const options = { summary: `End what is left of attempt ${attempt}` };
    try {
      await submitting.endJob.executeWithOptions(options, [{ spec, attempt, address }]);
    } catch (error) {
      if (!(error instanceof ActivityFailure) || isCancellation(error)) throw error;
      problem = problemOf(error);
      log.warn('could not end an attempt', { ...problem });
    }
  };

  /** Follows an attempt. A job that is told to stop is followed to its last line. */
  const follow = async (input: FollowJobInput): Promise<AttemptOutcome> => {
    const watch = async (
      scope: CancellationScope,
      until: FollowJobInput['until'],
    ): Promise<AttemptOutcome> => {
      const what = until === 'start' ? 'Wait for the start' : 'Follow state and log';
      const options = { summary: `${what} of attempt ${input.attempt}` };
      return scope.run(async () =>
        following.followJob.executeWithOptions(options, [{ ...input, until }]),
      );
    };
    return CancellationScope.nonCancellable(async () => {
      // Made here, so that the end of the work does not end it.
      const scope = new CancellationScope();
      const outcome = watch(scope, input.until);
      await Promise.race([outcome, condition(() => ending !== undefined)]);
      if (ending === undefined) return outcome;
      await endAttempt(input.attempt, input.address);
      // It may have started just when it was told to stop.
      const rest = outcome.then(async (seen) =>
        seen.status === 'running' ? watch(scope, 'end') : seen,
      );
      const last = await Promise.race([
        rest,
        sleep(LAST_LINES, { summary: 'Take the last lines of the log' }),
      ]);
      scope.cancel();
      await Promise.allSettled([rest]);
      return last ?? { status: 'stopped' };
    });
  };

  /** One attempt from its submission to its end, or what is left of one whose cluster was away. */
  const makeAttempt = async (
    attempt: number,
    address: ClusterAddress,
    again: boolean,
  ): Promise<AttemptOutcome> => {
    if (!again) {
      const submissionId = submissionIdOf(jobId, attempt);
      const startedAt = new Date().toISOString();
      attempts = [...attempts, { attempt, submissionId, state: 'submitting', startedAt }];
      enter('pending');
      const options = { summary: `Submit attempt ${attempt} as ${submissionId}` };
      try {
        await submitting.submitJob.executeWithOptions(options, [{ spec, attempt, address }]);
      } catch (error) {
        if (work.consideredCancelled) {
          await CancellationScope.nonCancellable(async () => endAttempt(attempt, address));
        }
        if (problemOf(error).type !== 'ClusterUnavailable') throw error;
        // Whether it was submitted after all is seen on the repaired cluster.
        return { status: 'unreachable', reason: problemOf(error).message };
      }
    }
    setAttempt({ state: 'pending' });
    enter('pending');
    const started = await follow({ spec, attempt, address, until: 'start' });
    if (started.status !== 'running') return started;
    setAttempt({ state: 'running', ...(started.node !== undefined && { node: started.node }) });
    enter('running');
    return follow({ spec, attempt, address, until: 'end' });
  };

  const body = async (): Promise<void> => {
    const options = { summary: 'Open the folder of the job in the store' };
    let attempt = (await store.openJob.executeWithOptions(options, [{ spec }])).attempts + 1;
    let address = await ensure();
    await checkStoreShared(cluster, { store: spec.store, cluster: address });
    let counts: JobCounts = { failures: 0, losses: 0, silences: 0 };
    let again = false;
    /** The repaired cluster. One that does not come up is a loss like others: its machines may be on their way back. */
    const ensureAgain = async (): Promise<ClusterAddress> => {
      for (;;) {
        try {
          return await ensure();
        } catch (error) {
          const met = problemOf(error);
          if (isCancellation(error) || met.type !== 'ClusterStartFailed') throw error;
          if (!patched('wait-for-lost-nodes')) throw error;
          const loss: Verdict = { kind: 'infrastructure', problem: met };
          counts = count(counts, loss, false);
          const step = planNext(spec, loss, counts);
          if (step.next !== 'submit') throw error;
          problem = met;
          enter('waiting');
          const summary = `Wait for the nodes of ${cluster.name}`;
          await sleep(step.delaySeconds * 1000, { summary });
        }
      }
    };
    // An activity that was cancelled too late has done its work.
    while (ending === undefined) {
      const outcome = await makeAttempt(attempt, address, again);
      verdict = judge(spec, attempt, outcome);
      counts = count(counts, verdict, outcome.answered ?? false);
      const step = planNext(spec, verdict, counts);
      problem = 'problem' in verdict ? verdict.problem : undefined;
      again = step.next === 'follow';
      if (!again) setAttempt(endOf(verdict));
      if (step.next === 'end' || isEnding()) return;
      enter(again ? 'preparing' : 'waiting');
      if (step.next === 'submit') {
        const why = `after attempt ${attempt}: ${problem?.type ?? verdict.kind}`;
        await sleep(step.delaySeconds * 1000, { summary: `Wait to try again ${why}` });
      }
      address = await ensureAgain();
      // What is thought to be lost may live on where nobody sees it.
      if (verdict.kind === 'infrastructure') await endAttempt(attempt, address);
      if (!again) attempt += 1;
    }
  };

  const giveBack = async (): Promise<void> => {
    if (!claimed) return;
    try {
      const options = { summary: `Give back cluster ${cluster.name}` };
      await release.stopCluster.executeWithOptions(options, [{ name: cluster.name, user }]);
    } catch (error) {
      if (!(error instanceof ActivityFailure)) throw error;
      log.error('could not take down what the job brought up', { ...problemOf(error) });
    }
  };

  const finish = (how: JobResult['state']): JobResult => {
    enter(how);
    const result = verdict?.kind === 'succeeded' ? verdict.result : undefined;
    return {
      jobId,
      state: how,
      attempts: attempts.at(-1)?.attempt ?? 0,
      ...(result?.metrics && { metrics: result.metrics }),
      ...(result?.checkpoint !== undefined && { checkpoint: result.checkpoint }),
      ...(result && { path: result.path }),
      ...(problem && how !== 'succeeded' && { error: problem }),
    };
  };
  const failWith = (how: 'failed' | 'timed_out'): ApplicationFailure => {
    const { type = 'Unknown', message = '' } = problem ?? {};
    return ApplicationFailure.create({
      type,
      message,
      nonRetryable: true,
      details: [finish(how)],
    });
  };

  // A cancellation by Temporal's own means is a stop.
  CancellationScope.current().cancelRequested.catch(() => end('stopped'));
  return CancellationScope.nonCancellable(async () => {
    const { timeoutSeconds } = spec;
    if (timeoutSeconds !== undefined) {
      clock
        .run(async () => sleep(timeoutSeconds * 1000, { summary: 'Time limit of the job' }))
        .then(() => end('timed_out'))
        .catch(() => {
          // The job ended before.
        });
    }
    try {
      await work.run(body);
    } catch (error) {
      if (!isCancellation(error) || ending === undefined) {
        problem = problemOf(error);
        enter('failed');
        throw workflowFailure(error);
      }
      setAttempt({ state: 'stopped', endedAt: new Date().toISOString() });
    } finally {
      clock.cancel();
      await giveBack();
    }
    if (verdict?.kind === 'succeeded') return finish('succeeded');
    if (ending === 'timed_out') {
      const message = `job ${jobId} did not end within ${timeoutSeconds} s`;
      problem = { type: 'JobTimedOut', message };
      throw failWith('timed_out');
    }
    if (ending === 'stopped' || verdict?.kind === 'stopped') return finish('stopped');
    throw failWith('failed');
  });
}

/** How an attempt is shown when it is over. */
function endOf(verdict: Verdict): Partial<AttemptStatus> {
  const states = {
    succeeded: 'succeeded',
    stopped: 'stopped',
    user: 'failed',
    infrastructure: 'lost',
    unreachable: 'lost',
  } as const;
  return {
    state: states[verdict.kind],
    endedAt: new Date().toISOString(),
    ...('problem' in verdict && { problem: verdict.problem }),
  };
}
