// The ublk frontend on the real driver, with a volume in memory behind it (native/ublk_memory.cc): the
// driver's rules, without the engine. What the whole daemon does with it is tested elsewhere.
import { strict as assert } from 'node:assert';
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Argv } from '../command.js';
import {
  checkExt4,
  Daemon,
  makeExt4,
  modprobe,
  mount,
  runFio,
  type ScenarioContext,
  scenario,
  startFio,
  unmount,
  waitFor,
} from './support.js';

const mib = 1 << 20;
const charClass = '/sys/class/ublk-char';
const steps = [
  ...['open-control', 'get-features', 'add-dev', 'set-params', 'get-params', 'open-char'],
  ...['map-queue', 'fetch', 'start-dev', 'block-node'],
];
/** Steps between ADD_DEV and a device that users see. */
const stepsWithDevice = steps.slice(steps.indexOf('set-params'));

type Options = Readonly<Record<string, string | number | undefined>>;

const kinds = ['reads', 'writes', 'flushes', 'discards', 'zeroes', 'fua'] as const;
type Served = Record<(typeof kinds)[number], number>;

const program = (t: ScenarioContext) => join(t.checkout, 'build/cmake/tidemark-ublk-memory');

/** Devices that the driver has, served or not. */
const devices = () => (existsSync(charClass) ? readdirSync(charClass) : []);

function assertNothingLeft(): void {
  assert.deepEqual(devices(), [], 'devices left in the driver');
  assert.deepEqual(
    readdirSync('/dev').filter((name) => /^ublk[bc]\d/.test(name)),
    [],
    'device nodes left',
  );
}

class Volume {
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
async function takeOver(t: ScenarioContext, id: number, options: Options = {}): Promise<Volume> {
  return Volume.start(t, { ...options, id, recover: 1 });
}

/** How a start ends that must fail. */
async function failedStart(t: ScenarioContext, options: Options): Promise<string> {
  const daemon = Volume.launch(t, options);
  const [, why = ''] = await daemon.waitForOutput(t, /^start-failed (.*)$/m, { timeoutMs: 90_000 });
  assert.equal((await daemon.end(10_000)).status, 1);
  return why;
}

const randomLoad = (device: string) => ({
  ...{ filename: device, ioengine: 'libaio', direct: 1, rw: 'randrw', iodepth: 16 },
  ...{ verify: 'crc32c', verify_fatal: 1 },
});

export default [
  scenario('ublk frontend: without the driver the start says what to do', async (t) => {
    await t.run(['/sbin/rmmod', 'ublk_drv'], { anyStatus: true });
    const why = await failedStart(t, {});
    assert.match(why, /^UBLK_UNAVAILABLE .*modprobe ublk_drv/);
  }),

  scenario(
    'ublk frontend: features names what the driver offers, and answers without root',
    async (t) => {
      await modprobe(t, 'ublk_drv');
      const root = JSON.parse((await t.run([program(t), 'features'])).stdout);
      assert.equal(root.ublk.usable, true);
      assert.ok(root.ublk.features.includes('USER_RECOVERY_REISSUE'));
      assert.ok(root.ublk.uses.every((use: { offered: boolean }) => use.offered));
      const nobody = await t.run([
        'setpriv',
        ...['--reuid=65534', '--regid=65534', '--clear-groups', program(t), 'features'],
      ]);
      const other = JSON.parse(nobody.stdout);
      assert.equal(other.ublk.control_device, true);
      assert.match(other.ublk.problem, /root/);
      assert.equal(other.nbd.usable, true);
    },
  ),

  scenario(
    'ublk frontend: fio verifies random I/O of 4k to 512k, and all kinds of requests arrive',
    async (t) => {
      const volume = await Volume.start(t);
      await runFio(t, 'random', {
        ...randomLoad(volume.device),
        ...{ bsrange: '4k-512k', size: 48 * mib, fsync: 16, do_verify: 1 },
      });
      await runFio(t, 'durable', {
        ...{ filename: volume.device, ioengine: 'libaio', direct: 1, rw: 'write', bs: '64k' },
        ...{ size: 4 * mib, sync: 'dsync', verify: 'crc32c' },
      });
      await t.run(['blkdiscard', volume.device]);
      await t.run([
        'blkdiscard',
        '--zeroout',
        '--offset',
        '0',
        '--length',
        '16777216',
        volume.device,
      ]);
      await t.run(['cmp', '-n', String(64 * mib), volume.device, '/dev/zero']);
      await runFio(t, 'trim', {
        ...{ filename: volume.device, ioengine: 'libaio', direct: 1, rw: 'randtrim', bs: '64k' },
        ...{ size: 8 * mib },
      });
      const served = await volume.served(t);
      for (const kind of kinds) {
        assert.ok(served[kind] > 0, `no ${kind}: ${JSON.stringify(served)}`);
      }
      await volume.stop(t);
      assertNothingLeft();
    },
    { timeoutMs: 240_000 },
  ),

  scenario(
    'ublk frontend: depths and request sizes at their limits, and 4 KiB blocks',
    async (t) => {
      for (const options of [
        { depth: 1, io: 4096 },
        { depth: 4096, io: 4096 },
        { depth: 171, io: 1 << 20, block: 4096 },
      ]) {
        const volume = await Volume.start(t, options);
        const { stdout } = await t.run(['blockdev', '--getss', '--getpbsz', volume.device]);
        assert.deepEqual(stdout.split('\n').slice(0, 2), [String(options.block ?? 512), '4096']);
        await runFio(t, `depth-${options.depth}`, {
          ...randomLoad(volume.device),
          ...{ bsrange: '4k-1m', size: 8 * mib, iodepth: 64 },
        });
        await volume.stop(t);
        assertNothingLeft();
      }
      assert.match(await failedStart(t, { depth: 0 }), /^UBLK_OPTIONS .*1\.\.4096/);
      assert.match(await failedStart(t, { io: 4097 }), /^UBLK_OPTIONS .*4096\.\.1048576/);
    },
    { timeoutMs: 240_000 },
  ),

  scenario('ublk frontend: a failed request is an error for its reader alone', async (t) => {
    const volume = await Volume.start(t, { bad: 8 * mib });
    const read = (offset: number) =>
      t.run(
        [
          'dd',
          `if=${volume.device}`,
          'of=/dev/null',
          'bs=4k',
          'count=1',
          'iflag=direct',
          `skip=${offset / 4096}`,
        ],
        { anyStatus: true },
      );
    assert.match((await read(8 * mib)).stderr, /Input\/output error/);
    assert.equal((await read(4 * mib)).status, 0);
    await volume.stop(t);
    assertNothingLeft();
  }),

  scenario(
    'ublk frontend: ext4 keeps its files, and a stop is refused while it is mounted',
    async (t) => {
      const volume = await Volume.start(t);
      await makeExt4(t, volume.device);
      const directory = await mount(t, volume.device);
      writeFileSync(join(directory, 'file'), 'kept'.repeat(100_000));
      const why = await volume.refusedStop(t);
      assert.match(why, /^UBLK_BUSY /);
      assert.ok(why.includes(`mounted on ${directory}`), why);
      await unmount(t, directory);

      const again = await mount(t, volume.device);
      const { stdout } = await t.run(['wc', '-c', join(again, 'file')]);
      assert.match(stdout, /^400000 /);
      await unmount(t, again);
      await checkExt4(t, volume.device);
      await volume.stop(t);
      assertNothingLeft();
    },
  ),

  scenario(
    'ublk frontend: a stop is refused while a process has the device open, and names it',
    async (t) => {
      const volume = await Volume.start(t);
      const opener = Daemon.start(t, [
        'bash',
        '-c',
        `exec 5<${volume.device}; echo open; exec sleep 1000`,
      ]);
      await opener.waitForOutput(t, /open/);
      const why = await volume.refusedStop(t);
      assert.match(why, /^UBLK_BUSY /);
      assert.ok(why.includes(`open by sleep (process ${opener.pid})`), why);
      await opener.kill();
      await volume.stop(t);
      assertNothingLeft();
    },
  ),

  scenario('ublk frontend: dirty pages reach the volume before the device goes', async (t) => {
    const volume = await Volume.start(t);
    const file = join(t.directory, 'content');
    await t.run(['dd', 'if=/dev/urandom', `of=${file}`, 'bs=1M', 'count=16', 'status=none']);
    await t.run([
      'dd',
      `if=${file}`,
      `of=${volume.device}`,
      'bs=1M',
      'conv=notrunc',
      'status=none',
    ]);
    await volume.stop(t);
    await t.run(['cmp', '-n', String(16 * mib), file, Volume.memory(t)]);
    assertNothingLeft();
  }),

  scenario('ublk frontend: a forced stop takes a mounted device away', async (t) => {
    const volume = await Volume.start(t);
    await makeExt4(t, volume.device);
    const directory = await mount(t, volume.device);
    await volume.stop(t, 'SIGUSR1');
    assert.ok(!existsSync(volume.device), 'the block device is still there');
    await t.run(['umount', '--lazy', directory], { anyStatus: true });
    await waitFor(t, 'the driver to let go', () => devices().length === 0);
    assertNothingLeft();
  }),

  scenario(
    'ublk frontend: a start that fails at any step leaves no device',
    async (t) => {
      await modprobe(t, 'ublk_drv');
      for (const step of steps) {
        const why = await failedStart(t, { id: 7, fail: step });
        assert.match(why, /^UBLK_/, step);
        assert.doesNotMatch(why, /is left/, step);
        assertNothingLeft();
      }
      const volume = await Volume.start(t, { id: 7 });
      await volume.stop(t);
      assertNothingLeft();
    },
    { timeoutMs: 240_000 },
  ),

  scenario(
    'ublk frontend: a start whose volume does not answer ends, and leaves no device',
    async (t) => {
      await modprobe(t, 'ublk_drv');
      const why = await failedStart(t, { id: 7, hold: 1 });
      assert.match(why, /^UBLK_TIMEOUT .*partition table/);
      assert.doesNotMatch(why, /is left/);
      assertNothingLeft();
    },
  ),

  scenario('ublk frontend: a forced stop fails what the volume does not answer', async (t) => {
    const volume = await Volume.start(t, { id: 7 });
    const before = (await volume.served(t)).reads;
    volume.daemon.signal('SIGHUP');
    await volume.daemon.waitForOutput(t, /^holding/m);
    const readers = [0, 8, 16].map((skip) =>
      Daemon.start(
        t,
        [
          'dd',
          ...[`if=${volume.device}`, 'of=/dev/null', 'bs=64k', 'count=1'],
          ...['iflag=direct', `skip=${skip}`],
        ],
        { name: `dd-${skip}` },
      ),
    );
    await waitFor(t, 'the reads', async () => (await volume.served(t)).reads >= before + 3);
    await volume.stop(t, 'SIGUSR1');
    for (const reader of readers) {
      assert.equal((await reader.end(10_000)).status, 1);
      assert.match(reader.output, /Input\/output error/);
    }
    assertNothingLeft();
  }),

  scenario(
    'ublk frontend: what a start that was killed left is cleared away by the next',
    async (t) => {
      await modprobe(t, 'ublk_drv');
      for (const step of stepsWithDevice) {
        if (step === 'block-node') continue; // Live by then: quiesced, not dead.
        const daemon = Volume.launch(t, { id: 7, die: step });
        assert.equal((await daemon.end(60_000)).signal, 'SIGKILL', step);
        await waitFor(t, 'the dead process to let go', () => devices().length === 1);
        const volume = await Volume.start(t, { id: 7 });
        await volume.stop(t);
        assertNothingLeft();
      }
    },
    { timeoutMs: 240_000 },
  ),

  scenario(
    'ublk frontend: an id that is in use is refused, and so is a foreign device',
    async (t) => {
      const volume = await Volume.start(t, { id: 3 });
      const why = await failedStart(t, { id: 3 });
      assert.match(why, /^UBLK_EXISTS .*live.*process \d+ serves it/);
      await volume.stop(t);
      assert.match(await failedStart(t, { id: 3, recover: 1 }), /^UBLK_GONE /);
      assertNothingLeft();
    },
  ),

  scenario(
    'ublk frontend: fio does not notice that the server was killed and replaced',
    async (t) => {
      let volume = await Volume.start(t, { id: 5, delay_us: 2_000 });
      const load = startFio(t, 'load', {
        ...randomLoad(volume.device),
        ...{ bsrange: '4k-256k', size: 48 * mib, time_based: true, runtime: 25, fsync: 32 },
      });
      for (let round = 0; round < 3; round += 1) {
        const before = (await volume.served(t)).writes;
        await waitFor(t, 'I/O', async () => (await volume.served(t)).writes > before + 50);
        await volume.daemon.kill();
        volume = await takeOver(t, 5, { delay_us: 2_000 });
      }
      assert.equal(load.daemon.exit, undefined, 'fio ended before the last kill');
      await load.finish(180_000);
      await volume.stop(t);
      assertNothingLeft();
    },
    { timeoutMs: 300_000 },
  ),

  scenario('ublk frontend: a mounted filesystem outlives its server', async (t) => {
    const volume = await Volume.start(t, { id: 5 });
    await makeExt4(t, volume.device);
    const directory = await mount(t, volume.device);
    await volume.daemon.kill();
    const writer = Daemon.start(t, [
      'dd',
      ...['if=/dev/zero', `of=${join(directory, 'file')}`, 'bs=64k', 'count=64', 'conv=fsync'],
    ]);
    const successor = await takeOver(t, 5);
    assert.equal((await writer.end(60_000)).status, 0);
    await unmount(t, directory);
    await checkExt4(t, successor.device);
    await successor.stop(t);
    assertNothingLeft();
  }),

  scenario(
    'ublk frontend: a take-over is refused for another size, another volume and a live device',
    async (t) => {
      const volume = await Volume.start(t, { id: 6, tag: 11 });
      await volume.daemon.kill();
      assert.match(
        await failedStart(t, { id: 6, tag: 11, recover: 1, bytes: 32 * mib }),
        /^UBLK_MISMATCH .*67108864 bytes.*33554432 bytes/,
      );
      assert.match(await failedStart(t, { id: 6, tag: 12, recover: 1 }), /^UBLK_FOREIGN /);
      assert.match(
        await failedStart(t, { id: 6, tag: 11, recover: 1, block: 4096 }),
        /^UBLK_MISMATCH .*logical block/,
      );
      assert.match(
        await failedStart(t, { id: 6, tag: 11, recover: 1, discard: 0 }),
        /^UBLK_MISMATCH .*discard/,
      );
      assert.match(await failedStart(t, { id: 6, tag: 11 }), /^UBLK_EXISTS .*take it over/);
      const successor = await takeOver(t, 6, { tag: 11 });
      assert.match(
        await failedStart(t, { id: 6, tag: 11, recover: 1 }),
        /^UBLK_BUSY .*still serves/,
      );
      await successor.stop(t);
      assertNothingLeft();
    },
    { timeoutMs: 240_000 },
  ),

  scenario(
    'ublk frontend: a take-over that fails or dies half way can be made again',
    async (t) => {
      let volume = await Volume.start(t, { id: 6 });
      for (const fault of [
        { fail: 'get-info' },
        { fail: 'get-params' },
        { fail: 'start-recovery' },
        { die: 'start-recovery' },
        { fail: 'open-char' },
        { die: 'open-char' },
        { die: 'map-queue' },
        { die: 'end-recovery' },
        { fail: 'end-recovery' },
      ]) {
        if (!volume.daemon.exit) await volume.daemon.kill();
        const daemon = Volume.launch(t, { id: 6, recover: 1, ...fault });
        await daemon.end(60_000);
        assert.doesNotMatch(daemon.output, /^started/m, JSON.stringify(fault));
        t.log(`${JSON.stringify(fault)}: ${daemon.output.trim()}`);
        volume = await takeOver(t, 6);
      }
      await volume.stop(t);
      assertNothingLeft();
    },
    { timeoutMs: 300_000 },
  ),

  scenario(
    'ublk frontend: one process leaves the device and takes it over with a new thread',
    async (t) => {
      const volume = await Volume.start(t, { id: 5, delay_us: 1_000 });
      const load = startFio(t, 'load', {
        ...randomLoad(volume.device),
        ...{ bsrange: '4k-64k', size: 16 * mib, time_based: true, runtime: 12 },
      });
      for (let round = 1; round <= 3; round += 1) {
        const before = (await volume.served(t)).writes;
        await waitFor(t, 'I/O', async () => (await volume.served(t)).writes > before + 20);
        volume.daemon.signal('SIGINT');
        await waitFor(
          t,
          'the take-over',
          () => (volume.daemon.output.match(/^started/gm) ?? []).length === round + 1,
        );
      }
      await load.finish(120_000);
      await volume.stop(t);
      assertNothingLeft();
    },
    { timeoutMs: 240_000 },
  ),

  scenario('ublk frontend: the server notices that another tool stopped its device', async (t) => {
    const volume = await Volume.start(t, { id: 4 });
    await t.run([program(t), 'remove', 'id=4']);
    await volume.daemon.waitForOutput(t, /^frontend-failed .*stopped by another/m);
    await volume.stop(t, 'SIGUSR1');
    await waitFor(t, 'the driver to let go', () => devices().length === 0);
    assertNothingLeft();
  }),
];
