import type { WorkflowHandle } from '@temporalio/client';
import { defaultPayloadConverter } from '@temporalio/common';

/** What the web interface shows of a workflow: its own texts, and those of what it does. */
export interface Labels {
  readonly summary: string | undefined;
  readonly details: string | undefined;
  /** Activities, timers and child workflows, by the names of their kinds, with the summary of each. */
  readonly steps: readonly { readonly what: string; readonly summary: string | undefined }[];
}

export async function labelsOf(handle: WorkflowHandle): Promise<Labels> {
  const [description, { events }] = [await handle.describe(), await handle.fetchHistory()];
  const steps = (events ?? []).flatMap((event) => {
    const { activityTaskScheduledEventAttributes: activity, timerStartedEventAttributes: timer } =
      event;
    const child = event.startChildWorkflowExecutionInitiatedEventAttributes;
    const what = activity?.activityType?.name ?? child?.workflowType?.name ?? (timer && 'timer');
    if (!what) return [];
    const payload = event.userMetadata?.summary;
    const summary = payload && defaultPayloadConverter.fromPayload<string>(payload);
    return [{ what, summary: summary ?? undefined }];
  });
  return {
    summary: await description.staticSummary(),
    details: await description.staticDetails(),
    steps,
  };
}

/** Steps that say nothing to whoever looks on. */
export const unlabelled = ({ steps }: Labels): string[] =>
  steps.filter(({ summary }) => !summary).map(({ what }) => what);
