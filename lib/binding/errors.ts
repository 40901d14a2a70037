/** The one error class of Tidemark: a stable `code` for programs, a message for people, the original as `cause`. */
export class TidemarkError extends Error {
  readonly code: string;
  readonly errno?: number;
  readonly syscall?: string;

  constructor(
    code: string,
    message: string,
    options: { cause?: unknown; errno?: number; syscall?: string } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'TidemarkError';
    this.code = code;
    if (options.errno !== undefined) this.errno = options.errno;
    if (options.syscall !== undefined) this.syscall = options.syscall;
  }
}
