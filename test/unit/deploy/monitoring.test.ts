import { readFileSync } from 'node:fs';
import path from 'node:path';

import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';

import { paths } from '../../../src/setup/paths.js';
import { readCompose } from '../../support/compose.js';

interface Prometheus {
  readonly global: unknown;
  readonly scrape_configs: readonly {
    readonly job_name: string;
    readonly static_configs?: readonly { readonly targets: readonly string[] }[];
    readonly http_sd_configs?: readonly { readonly url: string }[];
    readonly metric_relabel_configs?: unknown;
  }[];
}

const text = (file: string): string =>
  readFileSync(path.join(paths.packageRoot, 'deploy', file), 'utf8');
const prometheus = parse(text('prometheus/compose.yml')) as Prometheus;
const compose = readCompose();
const addresses = prometheus.scrape_configs.flatMap(
  ({ static_configs: fixed = [], http_sd_configs: found = [] }) => [
    ...fixed.flatMap(({ targets }) => targets),
    ...found.map(({ url }) => new URL(url).host),
  ],
);
const mounted = (service: string): Map<string, string> =>
  new Map(
    (compose.services[service]?.configs ?? []).map(({ source, target }) => [
      target,
      compose.configs[source]?.file ?? '',
    ]),
  );

describe('Prometheus on containers', () => {
  it('asks what the example for one machine asks, at the names of services, and Temporal', () => {
    const example = parse(text('prometheus/prometheus.yml')) as Prometheus;
    const named = JSON.parse(
      JSON.stringify(example)
        .replaceAll('127.0.0.1:9464', 'control-worker:9464')
        .replaceAll('127.0.0.1:9465', 'python-worker:9465'),
    ) as Prometheus;
    expect(prometheus.global).toEqual(named.global);
    expect(prometheus.scrape_configs.slice(0, -1)).toEqual(named.scrape_configs);
    expect(prometheus.scrape_configs.at(-1)?.job_name).toBe('temporal');
  });

  it('asks services of its network at the ports where they are told to answer', () => {
    expect(addresses).toHaveLength(4);
    for (const address of addresses) {
      const [name = '', port = ''] = address.split(':');
      const service = compose.services[name];
      const { RANKFLOW_METRICS_ADDRESS: own, PROMETHEUS_ENDPOINT: temporal } =
        service?.environment ?? {};
      expect(own ?? temporal, address).toBe(`0.0.0.0:${port}`);
      expect(service?.networks, address).toContain('cluster');
    }
    expect(compose.services['prometheus']?.networks).toContain('cluster');
    expect(mounted('prometheus').get('/etc/prometheus/prometheus.yml')).toBe(
      './deploy/prometheus/compose.yml',
    );
  });
});

describe('Grafana on containers', () => {
  it('asks Prometheus, and shows the dashboard that comes with Rankflow', () => {
    const { datasources } = parse(text('grafana/provisioning/datasources/prometheus.yml')) as {
      datasources: { type: string; url: string; isDefault: boolean }[];
    };
    expect(datasources).toMatchObject([
      { type: 'prometheus', url: 'http://prometheus:9090', isDefault: true },
    ]);
    expect(compose.services['prometheus']?.networks).toContain('monitoring');
    expect(compose.services['grafana']?.networks).toEqual(['monitoring']);
    const { providers } = parse(text('grafana/provisioning/dashboards/rankflow.yml')) as {
      providers: { type: string; options: { path: string } }[];
    };
    const files = mounted('grafana');
    const shown = `${providers[0]?.options.path}/rankflow.json`;
    expect(files.get(shown)).toBe('./deploy/grafana/rankflow.json');
    expect(compose.services['grafana']?.environment).toMatchObject({
      GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH: shown,
    });
    // Where Grafana looks for what it is provisioned with.
    for (const folder of ['datasources', 'dashboards']) {
      const found = [...files.keys()].filter((file) =>
        file.startsWith(`/etc/grafana/provisioning/${folder}/`),
      );
      expect(found).toHaveLength(1);
    }
  });
});
