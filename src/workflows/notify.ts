import { ActivityFailure, log, proxyActivities, setCurrentDetails } from '@temporalio/workflow';

import type { ControlActivities } from '../contracts/activities.js';
import { CONTROL_QUEUE } from '../contracts/names.js';
import type { NotifyInput, NotifyResult } from '../contracts/workflows.js';
import { receiverOf } from '../text.js';
import { table } from './details.js';
import { problemOf } from './failures.js';

const webhooks = proxyActivities<Pick<ControlActivities, 'sendWebhook'>>({
  taskQueue: CONTROL_QUEUE,
  // A receiver that has not answered in 30 s is asked again.
  startToCloseTimeout: '1 minute',
  // Receivers are away for minutes when they are deployed, for hours when nobody notices.
  scheduleToCloseTimeout: '24 hours',
  retry: { initialInterval: '2 seconds', backoffCoefficient: 2, maximumInterval: '10 minutes' },
});

const commands = proxyActivities<Pick<ControlActivities, 'runNotifyCommand'>>({
  taskQueue: CONTROL_QUEUE,
  // A mail or a message takes seconds, a copy to elsewhere minutes.
  startToCloseTimeout: '1 hour',
  // It heartbeats every 5 s while the command runs.
  heartbeatTimeout: '30 seconds',
  // What failed three times in a row rarely works the fourth time.
  retry: { initialInterval: '10 seconds', backoffCoefficient: 3, maximumAttempts: 3 },
});

/** Tells everybody who wants to know how a scheduled run ended; one that cannot be told holds up no other. */
export async function notifyWorkflow(input: NotifyInput): Promise<NotifyResult> {
  const outcomes = await Promise.all(
    input.notify.map(async (notification, index) => {
      const where = receiverOf(notification);
      const summary = `${notification.kind === 'webhook' ? 'Call' : 'Run'} ${where}`;
      const message = { ...input.result, schedule: input.schedule };
      const given = { delivery: `${input.delivery}-${index}`, message };
      try {
        if (notification.kind === 'webhook') {
          await webhooks.sendWebhook.executeWithOptions({ summary }, [{ ...given, notification }]);
        } else {
          await commands.runNotifyCommand.executeWithOptions({ summary }, [
            { ...given, notification },
          ]);
        }
        return { where, delivered: true };
      } catch (error) {
        if (!(error instanceof ActivityFailure)) throw error;
        const problem = problemOf(error);
        log.error('somebody could not be told', { where, ...problem });
        return { where, delivered: false, problem };
      }
    }),
  );
  const rows = outcomes.map(({ where, delivered, problem }) => [
    where,
    delivered ? 'delivered' : 'given up',
    problem?.message ?? '',
  ]);
  setCurrentDetails(table(['To', 'State', 'Problem'], rows));
  return { outcomes };
}
