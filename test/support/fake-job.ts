import { ApplicationFailure } from '@temporalio/common';
import { Context } from '@temporalio/activity';

import type {
  AttemptOutcome,
  FollowJobInput,
  JobActivities,
  SubmitJobInput,
} from '../../src/contracts/job.js';
import { ADDRESS } from './fake-cluster.js';

type Outcome = AttemptOutcome | (() => AttemptOutcome | Promise<AttemptOutcome>);

/** A cluster and its jobs, where each attempt ends as the test says. */
export class FakeJobs {
  /** How the attempts end, the first one first; one that has no end runs until it is ended. */
  ends: Outcome[] = [];
  earlierAttempts = 0;
  /** Whether nodes see another folder under the path of the store. */
  apart = false;
  /** An attempt is seen to start only after it was told to end. */
  startsOnlyWhenEnded = false;
  /** What was waited for. */
  readonly followed: string[] = [];
  readonly submitted: number[] = [];
  readonly ended: number[] = [];
  ensured = 0;
  released = 0;
  onEnsure: () => void | Promise<void> = () => {};
  onSubmit: (input: SubmitJobInput) => void | Promise<void> = () => {};

  readonly activities: JobActivities & object = {
    openJob: async () => ({ attempts: this.earlierAttempts }),
    submitJob: async (input: SubmitJobInput) => {
      await this.onSubmit(input);
      this.submitted.push(input.attempt);
    },
    followJob: async (input: FollowJobInput) => this.follow(input),
    endJob: async ({ attempt }: SubmitJobInput) => {
      this.ended.push(attempt);
    },
    ...{
      ensureCluster: async () => {
        this.ensured += 1;
        await this.onEnsure();
        return { address: ADDRESS, startedHere: true };
      },
      checkStoreShared: async () => {
        if (this.apart) throw ApplicationFailure.nonRetryable('b: no folder', 'StoreNotShared');
        return { nodes: [] };
      },
      stopCluster: async () => {
        this.released += 1;
        return { stopped: true };
      },
    },
  };

  private async follow({ attempt, until }: FollowJobInput): Promise<AttemptOutcome> {
    this.followed.push(until);
    if (until === 'start') {
      while (this.startsOnlyWhenEnded && !this.ended.includes(attempt)) {
        Context.current().heartbeat();
        await Context.current().sleep(50);
      }
      return { status: 'running' };
    }
    const end = this.ends.shift();
    if (end !== undefined) return typeof end === 'function' ? end() : end;
    const context = Context.current();
    for (;;) {
      context.heartbeat({ status: 'RUNNING', logBytes: 1 });
      await context.sleep(50);
      if (this.ended.includes(attempt)) return { status: 'stopped' };
    }
  }
}
