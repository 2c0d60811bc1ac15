import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';

import type { ResponseBody } from './store/documents.js';

export type Backend = 'simulated' | 'vllm';

/** One request of a workload. */
export interface Row {
  readonly customId: string;
  readonly url: '/v1/chat/completions' | '/v1/completions';
  readonly prompt: string;
  readonly maxTokens: number;
}

/** The requests of one run. Every prompt holds the canary, so that a leak is found wherever it goes. */
export interface Workload {
  readonly file: string;
  readonly rows: readonly Row[];
  readonly backend: Backend;
  /** Rows that are expected to end as one error line each: they kill their engine. */
  readonly poisoned: ReadonlySet<string>;
}

/** How many different lengths the prompts of real engines have: a row's number of tokens tells whose it is. */
const LENGTHS = 29;
const OUTPUTS = 17;

export interface WorkloadOptions {
  readonly file: string;
  readonly runId: string;
  readonly rows: number;
  readonly backend: Backend;
  readonly canary: string;
  /** Most tokens of an answer. */
  readonly tokens: number;
  /** Text that makes a prompt kill its engine, and the rows that hold it. */
  readonly poison?: { readonly text: string; readonly rows: readonly number[] };
}

/** Writes an input file in OpenAI's Batch format. */
export function makeWorkload(options: WorkloadOptions): Workload {
  const { backend, file, runId } = options;
  const poison = new Set(options.poison?.rows);
  const rows = Array.from({ length: options.rows }, (_, row): Row => {
    const bad = poison.has(row) ? ` ${options.poison?.text}` : '';
    const prompt =
      backend === 'simulated'
        ? `${options.canary} question ${row} of ${runId}${bad}`
        : `${options.canary} Tell a story.${' and'.repeat(row % LENGTHS)}${bad}`;
    return {
      customId: `${runId}-row-${row}`,
      // Every eighth row goes another way through the engine.
      url: backend === 'simulated' && row % 8 === 7 ? '/v1/completions' : '/v1/chat/completions',
      prompt,
      maxTokens: backend === 'simulated' ? options.tokens : options.tokens - (row % OUTPUTS),
    };
  });
  writeFileSync(file, rows.map((row) => `${JSON.stringify(line(row, backend))}\n`).join(''));
  const poisoned = new Set([...poison].map((row) => `${runId}-row-${row}`));
  return { file, rows, backend, poisoned };
}

function line({ customId, url, prompt, maxTokens }: Row, backend: Backend): object {
  const asked =
    url === '/v1/completions' ? { prompt } : { messages: [{ role: 'user', content: prompt }] };
  // Real answers get exactly as many tokens as they may have: the number tells whose answer it is.
  const exact = backend === 'vllm' ? { ignore_eos: true, temperature: 0 } : {};
  return {
    custom_id: customId,
    method: 'POST',
    url,
    body: { ...asked, max_tokens: maxTokens, ...exact },
  };
}

/** The text that the simulated engine must answer: a function of the prompt alone. */
export function simulatedAnswer({ url, prompt, maxTokens }: Row): string {
  // The JSON text that Python makes of what was asked.
  const asked =
    url === '/v1/completions'
      ? JSON.stringify(prompt)
      : `[{"content": ${JSON.stringify(prompt)}, "role": "user"}]`;
  const digest = createHash('sha256').update(asked).digest('hex');
  const tokens = 1 + (Number.parseInt(digest.slice(0, 8), 16) % maxTokens);
  const words = Array.from({ length: tokens }, (_, index) => {
    const start = index % 56;
    return digest.slice(start, start + 8);
  });
  return `simulated ${words.join(' ')}`;
}

/**
 * Holds answers against what was asked. A simulated answer must be the one of its prompt; of a real one the
 * counts of tokens must fit: prompts of equal length have equally many tokens, others have not, and every answer
 * is as long as its request asked for.
 */
export class Answers {
  readonly #promptTokens = new Map<number, number>();
  readonly #rows: ReadonlyMap<string, { readonly row: Row; readonly index: number }>;

  constructor(private readonly workload: Workload) {
    this.#rows = new Map(workload.rows.map((row, index) => [row.customId, { row, index }]));
  }

  /** Why an answer is not that of its row; undefined when it is. Names no prompt and no answer. */
  problem(customId: string, body: ResponseBody): string | undefined {
    const known = this.#rows.get(customId);
    if (known === undefined) return 'its id was never asked for';
    const { row, index } = known;
    const [choice] = body.choices ?? [];
    const text = choice?.message?.content ?? choice?.text;
    if (this.workload.backend === 'simulated') {
      return text === simulatedAnswer(row) ? undefined : 'its text belongs to another prompt';
    }
    if (text === undefined || text === null || text.trim() === '') return 'its text is empty';
    if (body.usage?.completion_tokens !== row.maxTokens) {
      return `it has ${body.usage?.completion_tokens} tokens and ${row.maxTokens} were asked for`;
    }
    return this.#promptProblem(index % LENGTHS, body.usage.prompt_tokens);
  }

  #promptProblem(length: number, tokens: number): string | undefined {
    const before = this.#promptTokens.get(length);
    if (before !== undefined) {
      return before === tokens ? undefined : `it counts ${tokens} prompt tokens, others ${before}`;
    }
    const other = [...this.#promptTokens].find(([, known]) => known === tokens);
    this.#promptTokens.set(length, tokens);
    return other === undefined ? undefined : 'its prompt is as long as one of another length';
  }
}
