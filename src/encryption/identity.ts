import { hostname } from 'node:os';

/** End of the identity of a control worker that encrypts: clients read there what they would have to do, too. */
export const ENCRYPTS = '+encrypted';

/** Identity of this process as Temporal shows it: the SDK's own, and whether it encrypts. */
export const workerIdentity = (on: boolean): string =>
  `${process.pid}@${hostname()}${on ? ENCRYPTS : ''}`;
