// The ublk frontend on the real driver, with a volume in memory behind it (native/ublk_memory.cc): the
// driver's rules, without the engine. What the whole daemon does with it is tested elsewhere.
import { strict as assert } from 'node:assert';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  assertNothingLeft,
  devices,
  failedStart,
  kinds,
  program,
  randomLoad,
  Volume,
} from './support/ublk_volume.js';
import {
  checkExt4,
  Daemon,
  makeExt4,
  modprobe,
  mount,
  runFio,
  scenario,
  unmount,
  waitFor,
} from './support.js';

const mib = 1 << 20;
const steps = [
  ...['open-control', 'get-features', 'add-dev', 'set-params', 'get-params', 'open-char'],
  ...['map-queue', 'fetch', 'start-dev', 'block-node'],
];
/** Steps between ADD_DEV and a device that users see. */
const stepsWithDevice = steps.slice(steps.indexOf('set-params'));

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

  scenario('ublk frontend: the server notices that another tool stopped its device', async (t) => {
    const volume = await Volume.start(t, { id: 4 });
    await t.run([program(t), 'remove', 'id=4']);
    await volume.daemon.waitForOutput(t, /^frontend-failed .*stopped by another/m);
    await volume.stop(t, 'SIGUSR1');
    await waitFor(t, 'the driver to let go', () => devices().length === 0);
    assertNothingLeft();
  }),
];
