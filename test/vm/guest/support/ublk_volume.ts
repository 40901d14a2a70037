// A volume in memory behind the ublk frontend (native/ublk_memory.cc), and what its process says.
import { strict as assert } from 'node:assert';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Argv } from '../../command.js';
import { Daemon } from './daemon.js';
import { modprobe } from './disk.js';
import type { ScenarioContext } from './scenario.js';
import { waitFor } from './wait.js';

const charClass = '/sys/class/ublk-char';
type Options = Readonly<Record<string, string | number | undefined>>;

export const kinds = ['reads', 'writes', 'flushes', 'discards', 'zeroes', 'fua'] as const;
type Served = Record<(typeof kinds)[number], number>;

export const program = (t: ScenarioContext) => join(t.checkout, 'build/cmake/tidemark-ublk-memory');

/** Devices that the driver has, served or not. */
export const devices = () => (existsSync(charClass) ? readdirSync(charClass) : []);

export function assertNothingLeft(): void {
  assert.deepEqual(devices(), [], 'devices left in the driver');
  assert.deepEqual(
    readdirSync('/dev').filter((name) => /^ublk[bc]\d/.test(name)),
    [],
    'device nodes left',
  );
}

export class Volume {
  readonly daemon: Daemon;
  readonly device: string;

  private constructor(daemon: Daemon, device: string) {
    this.daemon = daemon;
    this.device = device;
  }

  /** In /dev/shm, where it outlives the process that serves it. */
  static memory(t: ScenarioContext): string {
    return `/dev/shm/${t.directory.split('/').at(-1)}`;
  }

  static argv(t: ScenarioContext, options: Options): Argv {
    const given = Object.entries(options).filter(([, value]) => value !== undefined);
    const words = given.map(([key, value]) => `${key}=${value}`);
    return [program(t), `memory=${Volume.memory(t)}`, ...words];
  }

  /** A process that was told to serve, whatever comes of it. */
  static launch(t: ScenarioContext, options: Options): Daemon {
    t.undo('remove the volume memory', () => t.run(['rm', '-f', Volume.memory(t)]));
    return Daemon.start(t, Volume.argv(t, options));
  }

  static async start(t: ScenarioContext, options: Options = {}): Promise<Volume> {
    await modprobe(t, 'ublk_drv');
    const daemon = Volume.launch(t, options);
    const [, device = ''] = await daemon.waitForOutput(t, /^started (.*)$/m, { timeoutMs: 60_000 });
    // A scenario that fails must not leave a device without a server, on which everything hangs.
    const id = device.replace('/dev/ublkb', '');
    t.undo(`remove ${device}`, async () => {
      if (existsSync(device)) await t.run([program(t), 'remove', `id=${id}`], { anyStatus: true });
    });
    return new Volume(daemon, device);
  }

  get id(): number {
    return Number(this.device.replace('/dev/ublkb', ''));
  }

  async stop(t: ScenarioContext, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    this.daemon.signal(signal);
    await this.daemon.waitForOutput(t, /^stopped$/m);
    assert.deepEqual(await this.daemon.end(10_000), { status: 0, signal: null });
  }

  /** Asks for a stop that must be refused, and returns why it was. */
  async refusedStop(t: ScenarioContext): Promise<string> {
    const seen = this.daemon.output.length;
    this.daemon.signal('SIGTERM');
    return waitFor(t, 'the stop to be refused', () => {
      const match = /^stop-failed (.*)$/m.exec(this.daemon.output.slice(seen));
      return match?.[1];
    });
  }

  /** Requests that reached the volume, by kind. */
  async served(t: ScenarioContext): Promise<Served> {
    const seen = this.daemon.output.length;
    this.daemon.signal('SIGUSR2');
    const line = await waitFor(
      t,
      'the counts',
      () => /^served (.*)$/m.exec(this.daemon.output.slice(seen))?.[1],
    );
    const counts = new Map(
      [...line.matchAll(/(\w+)=(\d+)/g)].map(([, key, value]) => [key, Number(value)]),
    );
    return Object.fromEntries(kinds.map((kind) => [kind, counts.get(kind) ?? 0])) as Served;
  }
}

/** Serves a device that a process left. */
export async function takeOver(
  t: ScenarioContext,
  id: number,
  options: Options = {},
): Promise<Volume> {
  return Volume.start(t, { ...options, id, recover: 1 });
}

/** How a start ends that must fail. */
export async function failedStart(t: ScenarioContext, options: Options): Promise<string> {
  const daemon = Volume.launch(t, options);
  const [, why = ''] = await daemon.waitForOutput(t, /^start-failed (.*)$/m, { timeoutMs: 90_000 });
  assert.equal((await daemon.end(10_000)).status, 1);
  return why;
}

export const randomLoad = (device: string) => ({
  ...{ filename: device, ioengine: 'libaio', direct: 1, rw: 'randrw', iodepth: 16 },
  ...{ verify: 'crc32c', verify_fatal: 1 },
});
