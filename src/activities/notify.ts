import { createHmac } from 'node:crypto';
import { readFileSync } from 'node:fs';

import { Context } from '@temporalio/activity';
import { ApplicationFailure } from '@temporalio/common';
import { execa } from 'execa';

import type { DeliveryInput } from '../contracts/activities.js';
import { WebhookUrl } from '../contracts/schedule.js';
import { checkAllowed } from '../roots.js';

/** A receiver that takes longer works on the message before it answers, and will be asked again. */
const ANSWER_MS = 30_000;
const HEARTBEAT_MS = 5_000;
/** Lines of a command's standard error that its failure shows. */
const TAIL_LINES = 5;
/** Answers that another try may change, beside those of 500 and more: time-out, too early, too many. */
const PASSING: ReadonlySet<number> = new Set([408, 425, 429]);

type Secret = { readonly env?: string | undefined; readonly file?: string | undefined };

/**
 * `X-Rankflow-Signature` of a message: HMAC-SHA256, in hex, of the time stamp, a dot and the body.
 *
 * @param timestamp seconds since the epoch, as in `X-Rankflow-Timestamp`
 */
export const signatureOf = (secret: string, timestamp: string, body: string): string =>
  `sha256=${createHmac('sha256', secret).update(`${timestamp}.${body}`).digest('hex')}`;

/** Posts a message. Answers of 4xx are final, as the same message would be refused again. */
export async function sendWebhook({
  notification,
  delivery,
  message,
}: DeliveryInput<'webhook'>): Promise<void> {
  const body = JSON.stringify(message);
  const timestamp = String(Math.floor(Date.now() / 1000));
  const url = urlOf(notification);
  const { secret: key } = notification;
  const secret = key && readSecret(key, 'the key of the signature');
  const response = await fetch(url, {
    method: 'POST',
    body,
    headers: {
      'content-type': 'application/json',
      'x-rankflow-delivery': delivery,
      'x-rankflow-timestamp': timestamp,
      ...(secret !== undefined && {
        'x-rankflow-signature': signatureOf(secret, timestamp, body),
      }),
    },
    // A redirect would take the message to a host that nobody named.
    redirect: 'manual',
    signal: AbortSignal.timeout(ANSWER_MS),
  });
  await response.body?.cancel();
  if (response.ok) return;
  const { status } = response;
  const nonRetryable = status < 500 && !PASSING.has(status);
  throw ApplicationFailure.create({ type: 'Webhook', message: `status ${status}`, nonRetryable });
}

/** Where the message goes. A failure does not tell the URL, as fetch would, whose failures are in the history. */
function urlOf({ url, urlFrom }: DeliveryInput<'webhook'>['notification']): string {
  const what = 'the URL of the webhook';
  const found = url ?? readSecret(urlFrom ?? {}, what);
  if (WebhookUrl.safeParse(found).success) return found;
  const where = urlFrom === undefined ? '' : ` in ${placeOf(urlFrom)}`;
  throw ApplicationFailure.create({
    type: 'Webhook',
    message: `${what}${where} is none of http or https without a user`,
    // What a reference leads to may be mended.
    nonRetryable: url !== undefined,
  });
}

/** A secret, without the line end that editors leave. Another try may find it, so a missing one is not final. */
function readSecret(reference: Secret, what: string): string {
  const { env, file } = reference;
  const text = env === undefined ? file && readFileSync(file, 'utf8') : process.env[env];
  const secret = text?.replace(/\r?\n$/u, '');
  if (!secret) {
    throw ApplicationFailure.retryable(`${what} is not in ${placeOf(reference)}`, 'Webhook');
  }
  return secret;
}

const placeOf = ({ env, file }: Secret): string | undefined => env ?? file;

/** Where there are roots, a command is a file below one of them: a start of a workflow could name any other. */
function checkProgram(program: string): void {
  try {
    checkAllowed(program);
  } catch (error) {
    const { name, message } = error as Error;
    throw ApplicationFailure.nonRetryable(`the command ${message}`, name);
  }
}

/** Runs a command with the message in its environment and on its standard input. */
export async function runNotifyCommand({
  notification,
  delivery,
  message,
}: DeliveryInput<'command'>): Promise<void> {
  const context = Context.current();
  const [program = '', ...args] = notification.command;
  checkProgram(program);
  const timer = setInterval(() => context.heartbeat(), HEARTBEAT_MS);
  try {
    const { failed, stderr, shortMessage } = await execa(program, args, {
      input: JSON.stringify(message),
      reject: false,
      cancelSignal: context.cancellationSignal,
      env: { ...notification.env, ...variablesOf(message), RANKFLOW_DELIVERY: delivery },
    });
    if (!failed) return;
    const tail = stderr.trim().split('\n').slice(-TAIL_LINES).join('\n');
    throw ApplicationFailure.retryable(tail === '' ? (shortMessage ?? '') : tail, 'Command');
  } finally {
    clearInterval(timer);
  }
}

function variablesOf({
  schedule,
  runId,
  date,
  state,
  ...rest
}: DeliveryInput<'command'>['message']) {
  const { output, publishedUri = '' } = rest;
  return {
    RANKFLOW_SCHEDULE: schedule,
    RANKFLOW_RUN_ID: runId,
    RANKFLOW_DATE: date,
    RANKFLOW_STATE: state,
    RANKFLOW_ROWS: String(output?.rows ?? 0),
    RANKFLOW_FAILED_ROWS: String(output?.failed ?? 0),
    RANKFLOW_OUTPUT: publishedUri === '' ? (output?.outputUri ?? '') : publishedUri,
  };
}
