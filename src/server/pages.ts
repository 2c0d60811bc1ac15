/** One page of a list in OpenAI's form. */
export interface Page<T> {
  readonly object: 'list';
  readonly data: T[];
  readonly first_id: string | null;
  readonly last_id: string | null;
  readonly has_more: boolean;
}

export interface PageQuery {
  /** Id after which the page starts. What it named may be gone by now: its place in the order is not. */
  readonly after?: string | undefined;
  readonly limit: number;
  readonly order?: 'asc' | 'desc';
}

/**
 * Reads one page of what has ids that sort by time. Only what is on the page is read, and what `read` leaves out.
 *
 * @param ids ascending
 * @param read undefined for what is gone or not asked for
 */
export async function readPage<T extends { readonly id: string }>(
  ids: readonly string[],
  { after, limit, order = 'desc' }: PageQuery,
  read: (id: string) => Promise<T | undefined>,
): Promise<Page<T>> {
  const sorted = order === 'asc' ? ids : ids.toReversed();
  const follows = (id: string): boolean =>
    after === undefined || (order === 'asc' ? id > after : id < after);
  const data: T[] = [];
  let more = false;
  for (const id of sorted) {
    if (!follows(id)) continue;
    const item = await read(id);
    if (item === undefined) continue;
    more = data.length === limit;
    if (more) break;
    data.push(item);
  }
  return {
    object: 'list',
    data,
    first_id: data[0]?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
    has_more: more,
  };
}
