import { describe, expect, it } from 'vitest';

import { metricsAddress } from '../../../src/metrics/address.js';

describe('the address of the metrics of a worker', () => {
  it('is on the loopback unless the environment says otherwise', () => {
    expect(metricsAddress('')).toEqual({ host: '127.0.0.1', port: 9464 });
    expect(metricsAddress('0.0.0.0:9500')).toEqual({ host: '0.0.0.0', port: 9500 });
    expect(metricsAddress(':9500')).toEqual({ host: '127.0.0.1', port: 9500 });
    expect(metricsAddress('[::1]:0')).toEqual({ host: '::1', port: 0 });
  });

  it('can be turned off', () => {
    expect(metricsAddress('off')).toBeUndefined();
  });

  it.each(['9500', 'host:', 'host:http', 'host:70000'])('is not %s', (setting) => {
    expect(() => metricsAddress(setting)).toThrow(`${setting} is not HOST:PORT`);
  });
});
