import { describe, expect, it } from 'vitest';

import { containerSettings } from '../../../src/activities/ssh/node-settings.js';
import { sshProvider } from '../../support/ssh-spec.js';

describe('the container of a node', () => {
  const withEnvironment = (environment: object) => ({ ...sshProvider([]), environment });

  it('has its image, its Python and what it sees of its host', () => {
    const environment = { image: 'ray:1', python: '/opt/python', mounts: ['/data:ro'] };
    expect(containerSettings(withEnvironment(environment))).toEqual(environment);
    expect(containerSettings(withEnvironment({ image: 'ray:1' }))).toEqual({ image: 'ray:1' });
  });

  it('is none without an image', () => {
    expect(containerSettings(withEnvironment({ python: '/opt/python' }))).toEqual({});
  });
});
