/**
 * The control socket's language: one JSON object a line. A request is `{"id", "method", "params"}`; its reply
 * `{"id", "result"}` or `{"id", "error": {"code", "message"}}`. After `{"method": "events"}` lines `{"event": {...}}`
 * follow as things happen. docs/CLI.md lists the methods.
 */

import { TidemarkError } from '../binding/errors.ts';

/** A request that is longer is refused; the rest of its line is skipped. */
export const LINE_BYTES_MAX = 1 << 20;
export const CONNECTIONS_MAX = 64;
/** Requests of one connection that may be under way. */
export const REQUESTS_MAX = 64;
/** A client that reads so much too slowly is disconnected. */
export const BACKLOG_BYTES_MAX = 4 << 20;
const ID_CHARS_MAX = 128;
const METHOD_CHARS_MAX = 64;

export type RequestId = string | number | null;

export interface Request {
  id: RequestId;
  method: string;
  params: Record<string, unknown>;
}

export interface ReplyError {
  code: string;
  message: string;
}

export type Reply = { id: RequestId; result: unknown } | { id: RequestId; error: ReplyError };

/** What subscribers of `events` hear. */
export interface ControlEvent {
  volume: string;
  kind: string;
  peer: string | null;
  text: string;
  time_unix_ms: number;
}

function requestId(value: unknown): RequestId {
  if (typeof value === 'number' && Number.isFinite(value)) return value;
  if (typeof value === 'string' && value.length <= ID_CHARS_MAX) return value;
  return null;
}

/**
 * @throws TidemarkError BAD_REQUEST, with the request's id in `requestId` where it could be read.
 */
export function parseRequest(line: Uint8Array): Request | BadRequest {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(line));
  } catch (error) {
    return new BadRequest(null, `not JSON: ${(error as Error).message}`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return new BadRequest(null, 'a request is an object {"id", "method", "params"}');
  }
  const { id: rawId, method, params = {} } = value as Record<string, unknown>;
  const id = requestId(rawId);
  if (rawId !== undefined && id === null && rawId !== null) {
    return new BadRequest(
      null,
      `'id' is not a number or a text of up to ${ID_CHARS_MAX} characters`,
    );
  }
  if (typeof method !== 'string' || method === '' || method.length > METHOD_CHARS_MAX) {
    return new BadRequest(id, `'method' is not a text of 1..${METHOD_CHARS_MAX} characters`);
  }
  if (typeof params !== 'object' || params === null || Array.isArray(params)) {
    return new BadRequest(id, "'params' is not an object");
  }
  return { id, method, params: params as Record<string, unknown> };
}

export class BadRequest extends TidemarkError {
  readonly requestId: RequestId;

  constructor(id: RequestId, message: string) {
    super('BAD_REQUEST', message);
    this.requestId = id;
  }
}

/** Reads named parameters and refuses all others; messages name the parameter. */
export class Params {
  private readonly method: string;
  private readonly values: Record<string, unknown>;

  constructor(request: Request, allowed: readonly string[]) {
    this.method = request.method;
    this.values = request.params;
    const unknown = Object.keys(request.params).find((key) => !allowed.includes(key));
    if (unknown !== undefined) {
      const known = allowed.length === 0 ? 'none' : allowed.join(', ');
      throw new TidemarkError(
        'BAD_REQUEST',
        `${this.method}: unknown parameter '${unknown}' (known: ${known})`,
      );
    }
  }

  text(name: string): string | undefined {
    const value = this.values[name];
    if (value === undefined || value === null) return undefined;
    if (typeof value !== 'string' || value === '') throw this.wrong(name, 'a text');
    return value;
  }

  flag(name: string): boolean {
    const value = this.values[name];
    if (value === undefined || value === null) return false;
    if (typeof value !== 'boolean') throw this.wrong(name, 'true or false');
    return value;
  }

  private wrong(name: string, expected: string): TidemarkError {
    return new TidemarkError('BAD_REQUEST', `${this.method}: '${name}' is not ${expected}`);
  }
}
