import { readFileSync } from 'node:fs';
import path from 'node:path';

import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';

import { paths } from '../../../src/setup/paths.js';
import {
  dashboardMetrics,
  dashboardPanels,
  metricsIn,
  servedNames,
} from '../../support/dashboard.js';

describe('the Grafana dashboard', () => {
  const panels = dashboardPanels();

  it('asks in PromQL only, for metrics of Rankflow, vLLM, Temporal and its processes', () => {
    const names = dashboardMetrics();
    expect(names.length).toBeGreaterThan(30);
    for (const name of names) {
      expect(name).toMatch(/^(?:rankflow_|vllm:|temporal_|process_|nodejs_)[a-z0-9_]+$/u);
    }
  });

  it('says of each panel what it shows', () => {
    for (const { title, type, description, targets } of panels) {
      if (type === 'row') continue;
      expect(description, title).toBeTruthy();
      expect(targets?.length, title).toBeGreaterThan(0);
    }
  });

  it('has no two panels with one id or in one place', () => {
    expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
    const places = panels.map(({ gridPos: { x, y } }) => `${x},${y}`);
    expect(new Set(places).size).toBe(panels.length);
    for (const { gridPos } of panels) expect(gridPos.x + gridPos.w).toBeLessThanOrEqual(24);
  });
});

describe('what the tests compare the dashboard with', () => {
  it('is read from expressions and from what is served', () => {
    const ratio = 'sum(rate(a_total{x="b_total"}[$__rate_interval])) / max by (c) (vllm:d)';
    expect(metricsIn(ratio)).toEqual(['a_total', 'vllm:d']);
    expect(() => metricsIn('sum(rate(a_total)')).toThrow('not PromQL');
    const text = '# TYPE a_total counter\na_total 1\n# HELP h x\n# TYPE h histogram\n';
    expect([...servedNames(text)]).toEqual(['a_total', 'h_bucket', 'h_sum', 'h_count']);
  });
});

describe("Prometheus' example", () => {
  it('asks the addresses that workers serve at by default', () => {
    const file = path.join(paths.packageRoot, 'deploy/prometheus/prometheus.yml');
    const [workers, engines] = (
      parse(readFileSync(file, 'utf8')) as { scrape_configs: Record<string, unknown>[] }
    ).scrape_configs;
    expect(workers?.['static_configs']).toMatchObject([
      { targets: ['127.0.0.1:9464'] },
      { targets: ['127.0.0.1:9465'] },
    ]);
    expect(engines?.['http_sd_configs']).toMatchObject([
      { url: 'http://127.0.0.1:9464/metrics/targets' },
    ]);
  });
});
