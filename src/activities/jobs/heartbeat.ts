import { Context } from '@temporalio/activity';

/** Well within the 30 s after which these activities are thought to be lost. */
const HEARTBEAT_MS = 5_000;

/** Does work that may take longer than a heartbeat may, and says `details` meanwhile. */
export async function whileHeartbeating(
  work: (context: Context) => Promise<void>,
  details?: unknown,
): Promise<void> {
  const context = Context.current();
  const timer = setInterval(() => context.heartbeat(details), HEARTBEAT_MS);
  try {
    await work(context);
  } finally {
    clearInterval(timer);
  }
}
