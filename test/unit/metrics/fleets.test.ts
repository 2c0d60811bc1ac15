import { describe, expect, it } from 'vitest';

import { FleetGauges } from '../../../src/metrics/gauges.js';
import { engineTargets } from '../../../src/metrics/targets.js';
import { fleetOf, slotOf } from '../../support/fake-fleet.js';

describe('where Prometheus finds engines', () => {
  it('is told for those that serve metrics, each with labels of its own', () => {
    const fleet = fleetOf('small', [
      slotOf(0, { metrics: '10.0.0.1:41001' }),
      slotOf(1, { state: 'loading' }),
      slotOf(4, { metrics: '[fd00::1]:41001' }),
    ]);
    const labels = { fleet: 'small', cluster: 'lab', model: 'org/model' };
    expect(engineTargets([{ status: fleet, waiting: 0 }])).toEqual([
      { targets: ['10.0.0.1:41001'], labels: { ...labels, slot: '0' } },
      { targets: ['[fd00::1]:41001'], labels: { ...labels, slot: '4' } },
    ]);
  });
});

describe('what is told of fleets', () => {
  it('counts engines by state, with zeros for the states that nobody is in', async () => {
    const slots = [slotOf(0), slotOf(1, { state: 'loading', restarts: 2 }), slotOf(2)];
    const gauges = new FleetGauges(async () => [{ status: fleetOf('small', slots), waiting: 7 }]);
    const lines = (await gauges.text()).split('\n');
    expect(lines).toContain('rankflow_engines{fleet="small",state="ready"} 2');
    expect(lines).toContain('rankflow_engines{fleet="small",state="loading"} 1');
    expect(lines).toContain('rankflow_engines{fleet="small",state="dead"} 0');
    expect(lines).toContain('rankflow_engines_desired{fleet="small"} 3');
    expect(lines).toContain('rankflow_engine_restarts{fleet="small"} 2');
    expect(lines).toContain('rankflow_queue_depth{fleet="small"} 7');
    expect(lines).toContain('rankflow_fleets_observed 1');
  });

  it('forgets a fleet that is gone, and everything when Temporal does not answer', async () => {
    let answer = async () => [{ status: fleetOf('old', [slotOf(0)]), waiting: undefined }];
    const gauges = new FleetGauges(async () => answer());
    expect(await gauges.text()).toContain('fleet="old"');
    answer = async () => [];
    expect(await gauges.text()).not.toContain('fleet="old"');
    answer = async () => Promise.reject(new Error('no server'));
    const silent = await gauges.text();
    expect(silent).toContain('rankflow_fleets_observed 0');
    expect(silent).not.toContain('rankflow_engines{');
  });
});
