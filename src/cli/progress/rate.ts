/** One observation: milliseconds since the epoch, rows done, tokens generated. */
export interface Sample {
  readonly at: number;
  readonly rows: number;
  readonly tokens: number;
}

export interface Rates {
  readonly rowsPerSecond: number;
  readonly tokensPerSecond: number;
}

/**
 * Rates over a moving window. Counts from heartbeats may fall when an attempt is given up, so a sample with
 * fewer rows starts the window anew instead of showing a negative rate.
 */
export class RateWindow {
  private samples: Sample[] = [];

  constructor(private readonly windowMs = 20_000) {}

  add(sample: Sample): void {
    const last = this.samples.at(-1);
    if (last !== undefined && (sample.rows < last.rows || sample.tokens < last.tokens)) {
      this.samples = [];
    }
    this.samples.push(sample);
    // One sample from before the window is kept: it is where the window begins.
    while ((this.samples[1]?.at ?? Infinity) <= sample.at - this.windowMs) this.samples.shift();
  }

  /** Rates per second; zero until two samples lie at least a second apart. */
  rates(): Rates {
    const first = this.samples[0];
    const last = this.samples.at(-1);
    const seconds = first && last ? (last.at - first.at) / 1000 : 0;
    if (first === undefined || last === undefined || seconds < 1) {
      return { rowsPerSecond: 0, tokensPerSecond: 0 };
    }
    return {
      rowsPerSecond: (last.rows - first.rows) / seconds,
      tokensPerSecond: (last.tokens - first.tokens) / seconds,
    };
  }
}

/** Seconds until all rows are done at this rate; undefined when nobody can tell. */
export function etaSeconds(
  totalRows: number | undefined,
  doneRows: number,
  rowsPerSecond: number,
): number | undefined {
  if (totalRows === undefined || rowsPerSecond <= 0) return undefined;
  return Math.max(0, totalRows - doneRows) / rowsPerSecond;
}
