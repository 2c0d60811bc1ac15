import { readFileSync } from 'node:fs';
import path from 'node:path';

import { parser } from '@prometheus-io/lezer-promql';

import { paths } from '../../src/setup/paths.js';

export interface Panel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly description?: string;
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number };
  readonly targets?: readonly { readonly refId: string; readonly expr: string }[];
}

/** The panels of the Grafana dashboard that comes with Rankflow. */
export function dashboardPanels(): Panel[] {
  const file = path.join(paths.packageRoot, 'deploy/grafana/rankflow.json');
  return (JSON.parse(readFileSync(file, 'utf8')) as { panels: Panel[] }).panels;
}

/**
 * Names of the metrics that a PromQL expression asks for.
 *
 * @throws Error when it is none
 */
export function metricsIn(expression: string): string[] {
  // Grafana's own variable; those in strings are none of PromQL's business.
  const promql = expression.replaceAll('$__rate_interval', '1m');
  const names: string[] = [];
  parser.parse(promql).iterate({
    enter({ type, name, from, to }) {
      if (type.isError) throw new Error(`not PromQL at ${from}: ${promql}`);
      if (name === 'VectorSelector') {
        names.push(/^[a-zA-Z_:][\w:]*/u.exec(promql.slice(from, to))?.[0] ?? '');
      }
    },
  });
  return names;
}

/** All metrics that the dashboard asks for, each once. */
export const dashboardMetrics = (): string[] => [
  ...new Set(
    dashboardPanels().flatMap(({ targets = [] }) => targets.flatMap(({ expr }) => metricsIn(expr))),
  ),
];

/** Names of the series that a text in Prometheus' format has or would have, once something was counted. */
export function servedNames(text: string): Set<string> {
  const names = new Set<string>();
  for (const line of text.split('\n')) {
    const [, name = '', type] = /^# TYPE (\S+) (\S+)$/u.exec(line) ?? [];
    if (type === 'histogram') {
      for (const suffix of ['bucket', 'sum', 'count']) names.add(`${name}_${suffix}`);
    } else if (type !== undefined) names.add(name);
  }
  return names;
}
