import http from 'node:http';
import https from 'node:https';
import { text } from 'node:stream/consumers';

/** An answer whose body has not been read yet. */
export interface Answer {
  readonly status: number;
  readonly body: http.IncomingMessage;
  text(): Promise<string>;
}

export interface RequestOptions {
  readonly method?: 'GET' | 'POST' | 'PUT';
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array;
  /** Ends the request and its answer. */
  readonly signal: AbortSignal;
}

/**
 * One HTTP request. Not `fetch`: Node's sends the headers of a browser (`Sec-Fetch-Mode`), and Ray's dashboard lets
 * browsers change nothing.
 */
export async function request(url: URL, options: RequestOptions): Promise<Answer> {
  const { method = 'GET', headers = {}, body, signal } = options;
  const { request: send } = url.protocol === 'https:' ? https : http;
  const length = body === undefined ? {} : { 'content-length': Buffer.byteLength(body) };
  return new Promise((resolve, reject) => {
    const sent = send(url, { method, headers: { ...headers, ...length }, signal }, (answer) => {
      resolve({
        status: answer.statusCode ?? 0,
        body: answer,
        text: async () => text(answer),
      });
    });
    sent.on('error', reject);
    sent.end(body);
  });
}
