import { poll, signal } from '../lab/processes.js';
import type { Trouble } from '../s3/proxy.js';
import type { S3Server } from '../s3/server.js';
import { heldBack } from './bounds.js';
import type { Fault } from './fault.js';

/** Longer than the 5 s after which an attempt writes its next segment. */
const LASTS_S = 10;
/** And it lasts until it has hit something, for so long at most. */
const HITS_S = 60;

/** A bucket that misbehaves for a while, by a proxy before a real S3-compatible server. */
const trouble = (s3: S3Server, name: string, which: Trouble, title: string): Fault => ({
  name,
  title,
  phases: ['generate', 'finalize'],
  backends: ['simulated'],
  scope: 'run',
  bound: heldBack(LASTS_S),
  aim: async ({ trial }) => {
    const before = s3.proxy.hits.get(which) ?? 0;
    return {
      what: `for ${LASTS_S} s`,
      strike: () => s3.proxy.set(which),
      holdSeconds: LASTS_S,
      heal: async () => {
        // A bucket that nobody writes to has no trouble.
        const hit = () => (s3.proxy.hits.get(which) ?? 0) > before;
        await poll(() => (hit() || trial.ended ? true : undefined), HITS_S);
        s3.proxy.set(undefined);
        if (!hit()) throw new Error('no request was hit');
      },
    };
  },
});

/** Faults of a store in a bucket. */
export const s3Faults = (s3: S3Server): Fault[] => [
  trouble(s3, 's3-409', 'conflict', 'S3 answers conditional puts with 409'),
  trouble(
    s3,
    's3-412',
    'precondition',
    'S3 answers 412 to puts that were done: they were sent twice',
  ),
  trouble(s3, 's3-503', 'slow-down', 'S3 answers 503 SlowDown'),
  trouble(
    s3,
    's3-lost-acknowledgement',
    'lost-acknowledgement',
    'S3 does a put and its answer is lost',
  ),
  trouble(s3, 's3-slow', 'delay', 'S3 takes 3 s longer for every request'),
  {
    name: 's3-hang',
    title: 'the S3 server stands still (SIGSTOP) for a while',
    phases: ['generate'],
    backends: ['simulated'],
    scope: 'run',
    bound: heldBack(LASTS_S),
    aim: async () => ({
      what: `for ${LASTS_S} s`,
      strike: () => void signal(s3.pid, 'SIGSTOP'),
      holdSeconds: LASTS_S,
      heal: () => void signal(s3.pid, 'SIGCONT'),
    }),
  },
];
