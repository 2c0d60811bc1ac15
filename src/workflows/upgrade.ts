import { workflowInfo } from '@temporalio/workflow';

/**
 * Notices that another build of the control worker has taken over a workflow that lives for long. Temporal gives each
 * next step of such a workflow to the current build (`AUTO_UPGRADE`), so it is there within one step; it then begins a
 * new history soon, so that what one build did has to be understood by the next one, and by no later one.
 *
 * Which build did a step is in the history, so this is the same in a replay. Steps of an unversioned worker have none.
 */
export class Builds {
  readonly #began = Builds.now;

  /** Whether this history was begun by another build. */
  get changed(): boolean {
    return Builds.now !== this.#began;
  }

  private static get now(): string | undefined {
    return workflowInfo().currentDeploymentVersion?.buildId;
  }
}
