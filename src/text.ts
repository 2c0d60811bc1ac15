/** Words for people, used by workflows too: pure, and no Node built-ins. */

import type { Notification } from './contracts/schedule.js';

/** `1 batch`, `2 batches`. */
export function counted(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}

/** The last part of a model's folder or hub name: where it lies is in the details of whoever asks. */
export function shortName(model: string): string {
  return model.replace(/\/+$/u, '').split('/').at(-1) ?? model;
}

/** Whom a notification goes to: of a URL only scheme and host, as the rest of it is often a secret. */
export function receiverOf(notification: Notification): string {
  if (notification.kind === 'command') return notification.command[0] ?? '';
  const { url, urlFrom } = notification;
  if (url === undefined) return `the URL in ${urlFrom?.env ?? urlFrom?.file}`;
  // Older schedules may have a user and a password in it.
  const { scheme, host } =
    /^(?<scheme>https?:\/\/)(?:[^/\\?#]*@)?(?<host>[^/\\?#]+)/iu.exec(url)?.groups ?? {};
  return scheme === undefined ? 'a webhook' : `${scheme}${host}`;
}
