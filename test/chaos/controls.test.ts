import { beforeAll, describe, expect, it } from 'vitest';

import { negativeControls } from '../../chaos/campaign.js';
import type { Complaints } from '../../chaos/stages/controls.js';

const MINUTES = 15;
const SEED = 20_26;

let complaints: Complaints;

beforeAll(
  async () => {
    const log = (line: string): void => console.log(line);
    complaints = await negativeControls({ minutes: MINUTES, seed: SEED, log });
  },
  (MINUTES + 5) * 60_000,
);

/** A check that cannot fail proves nothing: with a guard switched off, the checker of the campaign has to complain. */
describe('without its guards', () => {
  it('a zombie replaces the commit of another engine, and the checker sees it', () => {
    expect(complaints.fence.map(({ code }) => code)).toContain('commit-replaced');
  });

  it('finished rows are generated again, and the checker sees it', () => {
    expect(complaints.salvage.map(({ code }) => code)).toContain('finished-row-again');
  });
});
