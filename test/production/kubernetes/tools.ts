import { fileURLToPath } from 'node:url';

import { execa } from 'execa';

import type { PodSpec, Service } from '../../support/manifests.js';

const folder = (name: string): string => fileURLToPath(new URL(name, import.meta.url));
const KUBERAY = 'github.com/ray-project/kuberay/ray-operator';

/** A pod as KubeRay makes it. */
export interface RayPod {
  readonly metadata: {
    readonly generateName: string;
    readonly namespace: string;
    readonly labels: Readonly<Record<string, string>>;
  };
  readonly spec: PodSpec;
}

export interface RayObjects {
  readonly head: RayPod;
  readonly workers: readonly RayPod[];
  readonly service: Service;
}

/**
 * What KubeRay's operator makes of the `RayCluster` of a manifest, by its own code. Needs Go.
 *
 * @throws with what its checks have against it
 */
export async function rayObjects(file: string): Promise<RayObjects> {
  const { stdout } = await execa('go', ['run', '.', file], { cwd: folder('kuberay') });
  return JSON.parse(stdout) as RayObjects;
}

/** Holds a manifest against the schemas of Kubernetes and the definitions of KubeRay. Needs Go. */
export async function validate(file: string): Promise<{ valid: boolean; problems: string[] }> {
  const { stdout } = await execa('go', ['mod', 'download', '-json', KUBERAY], {
    cwd: folder('kuberay'),
  });
  const { Dir: module } = JSON.parse(stdout) as { Dir: string };
  const { failed, stderr } = await execa(
    'go',
    ['tool', 'kubectl-validate', '--local-crds', `${module}/config/crd/bases`, file],
    { cwd: folder('validate'), reject: false },
  );
  // A field and what is wrong with it; the rest is decoration.
  const problems = stderr.split('\n').filter((line) => line.includes(': '));
  return { valid: !failed, problems };
}
