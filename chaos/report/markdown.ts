import type { FaultRecord, Report, RunRecord } from './record.js';
import { percentile, sum } from './statistics.js';

/** The report as people read it: totals, one line a kind of fault and of engine, what does not hold, what is skipped. */
export function markdown(report: Report): string {
  const { faults, runs, violations, skipped, seeds, cores, seconds, histories } = report;
  const minutes = (seconds / 60).toFixed(0);
  return [
    `${faults.length} faults in ${runs.length} runs, ${minutes} minutes on ${cores} cores, ` +
      `seed ${seeds.join(', ')}. ${histories} histories replayed.`,
    totals(runs),
    recovery(faults),
    violations.length === 0
      ? 'Every invariant held.'
      : [
          `**${violations.length} violations:**`,
          ...violations.map(({ invariant, code, message, run }) => {
            const where = run === undefined ? '' : ` (${run})`;
            return `- ${invariant} ${code}${where}: ${message}`;
          }),
        ].join('\n'),
    ...(skipped.length === 0
      ? []
      : [
          [
            'Not tried here:',
            ...[...new Set(skipped.map((one) => `- ${one.fault} in ${one.phase}: ${one.reason}`))],
          ].join('\n'),
        ]),
  ].join('\n\n');
}

function totals(runs: readonly RunRecord[]): string {
  const head = ['engines', 'runs', 'faults', 'rows', 'lost', 'duplicated', 'torn'];
  const rows = (['vllm', 'simulated'] as const).flatMap((backend) => {
    const own = runs.filter((run) => run.backend === backend);
    if (own.length === 0) return [];
    const tokens = sum(own, (run) => run.tokens);
    const share = (redone: number): string =>
      `${((100 * redone) / Math.max(1, tokens)).toFixed(2)} %`;
    return [
      [
        backend === 'vllm' ? 'vLLM' : 'simulated',
        own.length,
        sum(own, (run) => run.faults),
        sum(own, (run) => run.rows),
        sum(own, (run) => run.lost),
        sum(own, (run) => run.duplicated),
        sum(own, (run) => run.torn),
        tokens,
        share(sum(own, (run) => run.redoneTokens)),
        share(sum(own, (run) => run.redoneTokensAtMost)),
      ],
    ];
  });
  return table([...head, 'tokens', 'redone, seen', 'redone, at most'], rows);
}

function recovery(faults: readonly FaultRecord[]): string {
  const kinds = [...new Set(faults.map(({ backend, fault }) => `${backend} ${fault}`))].toSorted();
  const rows = kinds.map((kind) => {
    const own = faults.filter(({ backend, fault }) => `${backend} ${fault}` === kind);
    const phases = [...new Set(own.map(({ phase }) => phase))];
    const counted = phases.map(
      (phase) => `${phase} ${own.filter((one) => one.phase === phase).length}`,
    );
    return [
      own[0]?.fault ?? '',
      own[0]?.backend === 'vllm' ? 'vLLM' : 'simulated',
      own.length,
      counted.join(', '),
      spread(own.map(({ goesOnSeconds }) => goesOnSeconds)),
      spread(own.map(({ batchesSeconds }) => batchesSeconds)),
      spread(own.map(({ healedSeconds }) => healedSeconds)),
    ];
  });
  const head = [
    'fault',
    'engines',
    'times',
    'phases',
    'the run goes on',
    'its batches',
    'all well again',
  ];
  return `Seconds after the fault: p50 / p95 / max.\n\n${table(head, rows)}`;
}

function spread(values: readonly (number | undefined)[]): string {
  const known = values.filter((value) => value !== undefined);
  if (known.length === 0) return '';
  const of = (share: number): string => (percentile(known, share) ?? 0).toFixed(1);
  return `${of(0.5)} / ${of(0.95)} / ${of(1)}`;
}

function table(head: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const line = (cells: readonly (string | number)[]): string => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}
