import { describe, expect, it } from 'vitest';

import { idsOfWorkflow } from '../../../src/logs/ids.js';
import { lineText, logLine } from '../../../src/logs/lines.js';
import { workerLogger } from '../../../src/logs/worker-logger.js';

describe('a line of a log', () => {
  it('of a worker or an engine has its time, level and ids', () => {
    const json = { level: 40, time: 1_767_225_600_000, msg: 'lost', run: 'r1', rank: 3, batch: 7 };
    const line = logLine('small/slot-0', JSON.stringify(json));
    expect(line).toEqual({
      ...{ source: 'small/slot-0', text: 'lost', level: 'warn', time: json.time },
      ...{ run: 'r1', rank: 3, batch: 7 },
    });
    expect(lineText(line)).toBe('2026-01-01T00:00:00.000Z WARN small/slot-0 rank=3 batch=7: lost');
  });

  it('tells why', () => {
    const python = { msg: 'it failed', err: { stack: 'Traceback ...\nValueError: no model' } };
    expect(logLine('x', JSON.stringify(python)).text).toBe('it failed: ValueError: no model');
    const node = {
      msg: 'it failed',
      err: { message: 'no model', stack: 'Error: no model\n at x' },
    };
    expect(logLine('x', JSON.stringify(node)).text).toBe('it failed: no model');
  });

  it.each(['INFO 01-01 vLLM says something', '{ not json', ''])(
    'that is not JSON stays as it is: %s',
    (text) => {
      expect(logLine('x', text)).toEqual({ source: 'x', text });
      expect(lineText({ source: 'x', text })).toBe(`x: ${text}`);
    },
  );
});

describe('what a workflow is about', () => {
  it.each([
    ['inference/r1', { run: 'r1' }],
    ['run/r1', { run: 'r1' }],
    ['run/r1/rank-12', { run: 'r1', rank: 12 }],
    ['fleet/small', { fleet: 'small' }],
    ['cluster/lab', { cluster: 'lab' }],
    ['job/train', { job: 'train' }],
    ['scheduled/nightly-2026', {}],
    ['other', {}],
    [undefined, {}],
  ])('is in its id: %s', (workflowId, ids) => {
    expect(idsOfWorkflow(workflowId)).toEqual(ids);
  });
});

describe('the log of a worker', () => {
  const written: string[] = [];
  const logger = workerLogger('control-worker', { write: (line) => void written.push(line) });

  it('has the run and the rank that the SDK speaks of', () => {
    logger.warn('a rank waits', { workflowId: 'run/r1/rank-2', attempt: 3 });
    expect(JSON.parse(written.at(-1) ?? '')).toMatchObject({
      ...{ name: 'control-worker', level: 40, msg: 'a rank waits' },
      ...{ run: 'r1', rank: 2, attempt: 3 },
    });
  });

  it('lets no prompt out, should anybody ever log one', () => {
    const secret = 'a-prompt-that-nobody-may-see';
    logger.error('it failed', {
      ...{ prompt: secret, messages: [{ content: secret }] },
      request: { body: { input: secret } },
    });
    expect(written.at(-1)).toContain('it failed');
    expect(written.join('')).not.toContain(secret);
  });
});
