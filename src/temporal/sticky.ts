/**
 * How long Temporal holds what is meant for the worker that has a workflow in its memory, before it gives it to another
 * (milliseconds; the SDK's default).
 */
export const STICKY_MS = 10_000;

/**
 * How long a query may wait, at most: less than {@link STICKY_MS}. One that outlives the wait for a worker that was
 * killed goes to another worker with events whose workflow task is still to come. The SDK's Core (as of 1.24) hands these
 * to the workflow ahead of the rest of their task and with an older clock; what it does then may not be what it does at
 * replay, and its history does not fit its code any more.
 */
export const QUERY_MS = 4_000;
