/** Words for people, used by workflows too: pure, and no Node built-ins. */

/** `1 batch`, `2 batches`. */
export function counted(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}

/** The last part of a model's folder or hub name: where it lies is in the details of whoever asks. */
export function shortName(model: string): string {
  return model.replace(/\/+$/u, '').split('/').at(-1) ?? model;
}
