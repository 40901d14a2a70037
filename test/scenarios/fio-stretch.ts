// fio writes with verification until its device goes away or it is told to stop; a second fio then verifies what the
// first one saw acknowledged. The device need not be the same one.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type FioRun, type ScenarioContext, startFio } from '../vm/guest/support.ts';

/** Each writes one after the other: of several under way at once fio only remembers the last ones that were complete. */
const WRITERS = 6;

export interface StretchOptions {
  offset: number;
  bytes: number;
  seed: number;
  /** Writes a second, of each writer; without it as many as can be. */
  rate?: number;
}

type FioOptions = Record<string, string | number | boolean>;

export class FioStretch {
  private readonly t: ScenarioContext;
  private readonly name: string;
  private readonly options: FioOptions;
  private readonly run: FioRun;

  /** `device`: the options that name it. */
  constructor(t: ScenarioContext, name: string, device: FioOptions, options: StretchOptions) {
    this.t = t;
    this.name = name;
    const { offset, bytes, seed, rate } = options;
    const share = Math.floor(bytes / WRITERS / 4096) * 4096;
    this.options = {
      ...{ offset, offset_increment: share, size: share, numjobs: WRITERS, randseed: seed },
      ...{ rw: 'randwrite', bsrange: '4k-32k', iodepth: 1, fsync: 16 },
      ...{ verify: 'crc32c', verify_fatal: 1 },
      ...(rate === undefined ? {} : { rate_iops: `,${rate}` }),
    };
    this.run = startFio(t, name, {
      ...device,
      ...this.options,
      ...{ do_verify: 0, verify_state_save: 1 },
    });
  }

  /** Ends it; `broken`: its device may have gone away under it. */
  async end(broken: boolean, timeoutMs: number): Promise<void> {
    const { daemon } = this.run;
    if (daemon.exit === undefined) daemon.signal('SIGINT');
    const { status, signal } = await daemon.end(timeoutMs, 'SIGINT');
    // 128: ended by SIGINT.
    if (!broken && status !== 0 && status !== 128) {
      throw new Error(`fio ${this.name}: ${signal ?? `exit status ${status}`}\n${daemon.tail()}`);
    }
  }

  /**
   * Throws unless all that was acknowledged to it is on that device; returns how many writes that was. Null: nothing can be
   * said, as one of the writers left no note of which of its writes were complete.
   */
  async verify(device: FioOptions, timeoutMs: number): Promise<number | null> {
    const state = (writer: number) =>
      join(this.t.directory, `local-${this.name}-${writer}-verify.state`);
    const writers = Array.from({ length: WRITERS }, (_, writer) => writer);
    if (!writers.every((writer) => existsSync(state(writer)))) return null;
    const run = startFio(this.t, this.name, {
      ...device,
      ...this.options,
      ...{ verify_only: true, verify_state_load: 1, verify_state_save: 0 },
    });
    try {
      const { jobs } = await run.finish(timeoutMs);
      return jobs.reduce((sum, { read }) => sum + read.total_ios, 0);
    } catch (error) {
      const told = run.daemon.output.split('\n').filter((line) => /^(verify|fio): /.test(line));
      const text = told.join('\n') || (error as Error).message;
      throw new Error(`fio ${this.name} does not find what it wrote: ${text}`, { cause: error });
    }
  }
}
