const UNITS: Readonly<Record<string, number>> = {
  '': 1,
  k: 1e3,
  m: 1e6,
  g: 1e9,
  t: 1e12,
  ki: 2 ** 10,
  mi: 2 ** 20,
  gi: 2 ** 30,
  ti: 2 ** 40,
};

/**
 * Bytes of a size as people write it: `100GB` (powers of 1000), `1.5TiB` (of 1024), `4096`.
 *
 * @returns undefined when it is none
 */
export function bytesOf(text: string): number | undefined {
  const [, number = '', unit = ''] = /^(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?$/iu.exec(text) ?? [];
  const size = UNITS[unit.toLowerCase()];
  return number === '' || size === undefined ? undefined : Math.floor(Number(number) * size);
}
