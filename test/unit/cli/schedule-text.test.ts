import { expect, it } from 'vitest';

import { triggeredText } from '../../../src/cli/schedule.js';
import type { ScheduleView } from '../../../src/client/schedules.js';

const view = (runId: string) =>
  ({ name: 'nightly', run: { runId } }) as Pick<ScheduleView, 'name' | 'run'>;
const once = view('{schedule}-{date}');

it('a start that is not seen yet waits for a run only when one goes on', () => {
  const waiting = triggeredText('waiting', 'nightly-1', 'buffer-all', once);
  expect(waiting).toMatch(/^It starts after the run that goes on, as nightly-1: see/u);
  const asked = triggeredText('asked', 'nightly-1', 'buffer-all', once);
  expect(asked).not.toContain('goes on');
  expect(asked).toContain('was asked to start it as nightly-1, and has not yet');
  expect(asked).toContain('rankflow schedule show nightly');
  const exact = view('{schedule}-{date}-{hour}');
  expect(triggeredText('asked', 'nightly-1', 'skip', exact)).toContain('or with another time');
});

it('a start that is skipped names the policy that is in force', () => {
  const skipped = triggeredText('skipped', 'nightly-1', 'skip', once);
  expect(skipped).toContain('the policy is to skip then');
  const full = triggeredText('skipped', 'nightly-1', 'buffer-one', once);
  expect(full).toContain('by the policy buffer-one no more may wait');
});
