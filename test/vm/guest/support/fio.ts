// fio as a load beside a scenario, with its report as data.
import { Daemon } from './daemon.js';
import type { ScenarioContext } from './scenario.js';

/** The part of fio's JSON that scenarios use. */
export interface FioDirection {
  io_bytes: number;
  total_ios: number;
  iops: number;
  clat_ns: { mean: number; max: number };
}

export interface FioJob {
  jobname: string;
  error: number;
  read: FioDirection;
  write: FioDirection;
  trim: FioDirection;
}

export interface FioReport {
  jobs: FioJob[];
}

export interface FioRun {
  readonly daemon: Daemon;
  /** Resolves when fio ended without an error; rejects with its output otherwise. */
  finish(timeoutMs?: number): Promise<FioReport>;
}

const defaultTimeoutMs = 120_000;

/** Starts fio with long options given as {rw: 'randwrite', bs: '4k', time_based: true}. */
export function startFio(
  t: ScenarioContext,
  name: string,
  options: Readonly<Record<string, string | number | boolean>>,
): FioRun {
  const words = Object.entries(options)
    .filter(([, value]) => value !== false)
    .map(([key, value]) => (value === true ? `--${key}` : `--${key}=${value}`));
  const daemon = Daemon.start(
    t,
    // Group reporting would hide which job failed; one process keeps kill simple.
    ['fio', `--name=${name}`, '--output-format=json', '--thread', ...words],
    { name: `fio-${name}`, cwd: t.directory },
  );
  return {
    daemon,
    async finish(timeoutMs = defaultTimeoutMs) {
      const exit = await daemon.end(timeoutMs);
      const report = parseReport(daemon.stdout);
      const failed = report?.jobs.filter((job) => job.error !== 0) ?? [];
      if (exit.status !== 0 || !report || failed.length > 0) {
        const errors = failed.map((job) => `${job.jobname}: error ${job.error}`).join(', ');
        throw new Error(
          `fio ${name}: ${exit.signal ?? `exit status ${exit.status}`} ${errors}\n${daemon.tail()}`,
        );
      }
      return report;
    },
  };
}

/** Runs fio to its end. */
export function runFio(
  t: ScenarioContext,
  name: string,
  options: Readonly<Record<string, string | number | boolean>>,
  timeoutMs?: number,
): Promise<FioReport> {
  return startFio(t, name, options).finish(timeoutMs);
}

/** fio may print notes before the JSON. */
function parseReport(output: string): FioReport | undefined {
  const begin = output.search(/^\{/m);
  if (begin < 0) return undefined;
  try {
    return JSON.parse(output.slice(begin)) as FioReport;
  } catch {
    return undefined;
  }
}
