import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { MANIFESTS, Manifest } from '../support/manifests.js';
import { rayObjects, validate } from './kubernetes/tools.js';
import { has } from './server.js';

const TIMEOUT_MS = 900_000;
const lacks = (await has('go')) ? '' : ' (needs Go)';

/** The manifests against the schemas of Kubernetes itself and of KubeRay, and KubeRay's own checks. */
describe.skipIf(lacks !== '')(`examples/kubernetes${lacks}`, { timeout: TIMEOUT_MS }, () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'rfm-'));
  const write = (text: string): string => {
    const file = path.join(folder, 'manifest.yaml');
    writeFileSync(file, text);
    return file;
  };
  const manifests = new Map<string, Manifest>();
  const textOf = (name: string): string => manifests.get(name)?.text ?? '';

  beforeAll(() => {
    for (const file of MANIFESTS) {
      manifests.set(path.basename(file), Manifest.read(file, false));
      manifests.set(`${path.basename(file)} with the API's volume`, Manifest.read(file));
    }
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('is valid to the schemas of Kubernetes and of KubeRay', async () => {
    for (const [name, { text }] of manifests) {
      expect(await validate(write(text)), name).toEqual({ valid: true, problems: [] });
    }
  });

  it.each([
    ['temporal.yaml', 'volumeClaimTemplates:', 'volumeClaimTemplate:'],
    ['temporal.yaml', 'enableServiceLinks: false', "enableServiceLinks: 'no'"],
    ['rankflow.yaml', 'shareProcessNamespace:', 'shareProcessNamespaces:'],
    ['rankflow.yaml', 'secretName: rankflow-ray-token', 'secret: rankflow-ray-token'],
    ['rankflow.yaml', 'replicas: 2', 'replicas: two'],
    ['rankflow.yaml', 'failureThreshold: 6', 'failureThresholds: 6'],
    ['api.yaml', 'livenessProbe:', 'livelinessProbe:'],
  ])('is not valid to them with a slip: %s, %s', async (name, right, wrong) => {
    const text = textOf(name);
    expect(text).toContain(right);
    const { valid, problems } = await validate(write(text.replace(right, wrong)));
    expect(valid).toBe(false);
    expect(problems.join('\n')).toContain(wrong.split(':')[0]);
  });

  it("passes the checks of KubeRay's operator, which makes pods and a service of it", async () => {
    const { head, workers, service } = await rayObjects(write(textOf('rankflow.yaml')));
    expect(service.metadata.name).toBe('rankflow-head-svc');
    expect(workers).toHaveLength(2);
    for (const { spec } of [head, ...workers]) {
      const [ray] = spec.containers;
      expect(ray?.args?.join(' ')).toMatch(/ray start .*--block/u);
      expect(ray?.readinessProbe?.httpGet).toBeDefined();
      expect(ray?.livenessProbe?.httpGet).toBeDefined();
      const token = ray?.env?.find(({ name }) => name === 'RAY_AUTH_TOKEN')?.valueFrom;
      expect(token?.secretKeyRef).toEqual({ name: 'rankflow-ray-token', key: 'auth_token' });
    }
    // It knows since which version Ray has tokens.
    const old = textOf('rankflow.yaml').replace(/rayVersion: \S+/u, 'rayVersion: 2.40.0');
    await expect(rayObjects(write(old))).rejects.toThrow(/2\.5\d/u);
  });
});
