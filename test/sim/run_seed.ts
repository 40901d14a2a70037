/** Runs one seed to its end, and says how that was. */
import { Simulation } from './simulation.ts';
import { script } from './themes.ts';
import { Violation } from './violation.ts';

export interface SeedResult {
  seed: number;
  theme: string;
  steps: number;
  virtualMs: number;
  cpuMs: number;
  /** Of the whole trace: the same in every run of this seed. */
  traceHash: number;
  /** Null: all was as it must be. */
  failure: { check: string; message: string; lines: string[] } | null;
  counts: {
    reads: number;
    writes: number;
    flushes: number;
    errors: number;
    virtualCrashes: number;
  };
}

let current: Simulation | null = null;

// A promise that nobody waits for is a defect of the product, or of the simulator.
process.on('unhandledRejection', (reason) => {
  const text = reason instanceof Error ? (reason.stack ?? reason.message) : String(reason);
  if (current === null) throw reason;
  current.fail('exception', `nobody handles: ${text}`);
});

export async function runSeed(seed: number, printTrace: boolean): Promise<SeedResult> {
  const begin = process.cpuUsage();
  const sim = new Simulation(seed, { printTrace });
  current = sim;
  let failure: SeedResult['failure'] = null;
  try {
    await sim.run(script);
  } catch (error) {
    const violation =
      error instanceof Violation ? error : new Violation('exception', (error as Error).stack!);
    sim.trace.add('FAILED', violation.message);
    failure = { check: violation.check, message: violation.message, lines: sim.trace.tail(4000) };
  }
  current = null;
  sim.end();
  const { user, system } = process.cpuUsage(begin);
  const { reads, writes, flushes, errors } = sim.model;
  return {
    seed,
    theme: sim.plan.theme,
    steps: sim.step,
    virtualMs: sim.time.nowUs / 1000,
    cpuMs: (user + system) / 1000,
    traceHash: sim.trace.hash,
    failure,
    counts: { reads, writes, flushes, errors, virtualCrashes: sim.checks.virtualCrashes },
  };
}
