import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { afterAll, afterEach, beforeEach, expect, test, vi } from 'vitest';

import { describeFailure } from '../../src/client/errors.js';
import { temporalSettings } from '../../src/temporal/settings.js';

const folder = mkdtempSync(path.join(tmpdir(), 'rankflow-settings-'));
const profiles = path.join(folder, 'temporal.toml');
const CANARY = 'eyJhbGciOi-canary-51c7';

beforeEach(() => {
  for (const name of ['TEMPORAL_ADDRESS', 'TEMPORAL_PROFILE', 'TEMPORAL_API_KEY']) {
    vi.stubEnv(name, undefined);
  }
  vi.stubEnv('TEMPORAL_CONFIG_FILE', profiles);
});
afterEach(() => vi.unstubAllEnvs());
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const refusal = (): { readonly shown: string; readonly all: string } => {
  try {
    temporalSettings();
  } catch (error) {
    const { message, wayOut } = describeFailure(error);
    return { shown: `${message} ${wayOut}`, all: `${JSON.stringify(error)} ${inspected(error)}` };
  }
  throw new Error('the settings were taken');
};
const inspected = (error: unknown): string =>
  error instanceof Error ? `${error.stack} ${inspected(error.cause)}` : '';

test('profiles that are no TOML are refused with the line, and nothing of what is in it', () => {
  writeFileSync(profiles, `[profile.default]\naddress = "a:7233"\napi_key = ${CANARY}\n`);
  const { shown, all } = refusal();
  expect(shown).toMatch(/not TOML \(line 3, column \d+\).*temporal\.toml/u);
  expect(all).not.toContain(CANARY);
});

test.each(['', '[profiles.default]\naddress = "a:7233"\n'])(
  'a file without a profile is refused with what it lacks: %j',
  (text) => {
    writeFileSync(profiles, text);
    expect(refusal().shown).toMatch(/no \[profile\.NAME\] in it.*TEMPORAL_CONFIG_FILE/u);
  },
);

test.each(['\n', '\r', ' ', 'ü'])('an API key with %j is refused before it is sent', (end) => {
  writeFileSync(profiles, '[profile.default]\n');
  vi.stubEnv('TEMPORAL_ADDRESS', 'a:7233');
  vi.stubEnv('TEMPORAL_API_KEY', `${CANARY}${end}`);
  const { shown, all } = refusal();
  expect(shown).toMatch(/API key for Temporal has a blank.*TEMPORAL_API_KEY/u);
  expect(all).not.toContain(CANARY);
});

test('a good key is taken', () => {
  writeFileSync(profiles, '[profile.default]\n');
  vi.stubEnv('TEMPORAL_API_KEY', CANARY);
  expect(temporalSettings().options.apiKey).toBe(CANARY);
});
