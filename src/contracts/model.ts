import { z } from 'zod';

/** A reference to a secret, never the secret: the engine reads it where it runs. */
export const SecretRef = z
  .strictObject({
    env: z.string().min(1).optional().describe('Environment variable on the engine node'),
    file: z.string().min(1).optional().describe('File (mode 0600) on the engine node'),
  })
  .meta({ id: 'SecretRef' });

/** What an engine loads and how. Its hash names the fleet's queue, so two specs never share work. */
export const ModelSpec = z
  .strictObject({
    model: z.string().min(1).describe('Local folder or hub name of the model'),
    revision: z.string().min(1).optional().describe('Hub revision: branch, tag or commit'),
    tokenizer: z.string().min(1).optional(),
    endpoint: z.string().optional().describe('Hub endpoint (HF_ENDPOINT) to load from'),
    credentials: SecretRef.optional().describe('Reference to the hub token'),
    cacheDir: z.string().optional().describe('Folder on the engine node that keeps downloads'),
    dtype: z.enum(['auto', 'bfloat16', 'float16', 'float32']).default('auto'),
    maxModelLen: z.int().positive().optional().describe('Context length in tokens'),
    tensorParallelSize: z.int().positive().default(1),
    pipelineParallelSize: z.int().positive().default(1),
    maxNumSeqs: z.int().positive().optional().describe('Concurrent sequences of one engine'),
    cpusPerEngine: z.number().positive().default(1),
    gpusPerEngine: z.number().nonnegative().default(0).describe('Fractions share one GPU'),
    toolCallParser: z.string().optional(),
    reasoningParser: z.string().optional(),
    engineArgs: z
      .record(z.string(), z.unknown())
      .default({})
      .describe('Extra vLLM engine arguments'),
    backend: z.enum(['vllm', 'simulated']).default('vllm'),
  })
  .meta({ id: 'ModelSpec' });
export type ModelSpec = z.infer<typeof ModelSpec>;
