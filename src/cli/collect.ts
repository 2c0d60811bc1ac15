/** Parser of an option that may be repeated. */
export const collect = (text: string, earlier: readonly string[] = []): string[] => [
  ...earlier,
  text,
];
