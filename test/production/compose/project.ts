import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { execa } from 'execa';
import { z } from 'zod';

const here = fileURLToPath(new URL('.', import.meta.url));

const Mounted = z.object({ source: z.string(), target: z.string() });
const Service = z.object({
  image: z.string(),
  user: z.string().optional(),
  restart: z.string().default('no'),
  entrypoint: z.array(z.string()).nullish(),
  command: z.array(z.string()).nullish(),
  environment: z.record(z.string(), z.string().nullable()).default({}),
  secrets: z.array(Mounted).default([]),
  configs: z.array(Mounted).default([]),
  volumes: z.array(Mounted.extend({ type: z.enum(['bind', 'volume']) })).default([]),
  shm_size: z.coerce.number().optional(),
  deploy: z.object({ replicas: z.number().optional() }).optional(),
  depends_on: z.record(z.string(), z.object({ condition: z.string() })).default({}),
  healthcheck: z.object({ test: z.array(z.string()) }).optional(),
});
export type Service = z.infer<typeof Service>;

const Project = z.object({
  services: z.record(z.string(), Service),
  secrets: z.record(z.string(), z.object({ file: z.string() })),
  configs: z.record(z.string(), z.object({ file: z.string() })),
});
/** A Compose file with all of its variables and defaults resolved. */
export type Project = z.infer<typeof Project>;

/** Reads a Compose file with the specification's reference implementation, which also checks it. Needs Go. */
export async function loadProject(file: string, profile: string): Promise<Project> {
  const { stdout } = await execa('go', ['run', '.', path.resolve(file), profile], { cwd: here });
  return Project.parse(JSON.parse(stdout));
}
