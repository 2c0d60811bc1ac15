/** `user@host:port`, with IPv6 addresses in brackets. */
export function jumpHost(text: string): { user?: string; host: string; port?: number } {
  const match =
    /^(?:(?<user>[^@]+)@)?(?:\[(?<six>[^\]]+)\]|(?<host>[^:]+))(?::(?<port>\d+))?$/u.exec(text);
  const { user, six, host, port } = match?.groups ?? {};
  return {
    host: six ?? host ?? text,
    ...(user !== undefined && { user }),
    ...(port !== undefined && { port: Number(port) }),
  };
}
