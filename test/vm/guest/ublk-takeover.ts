// A device whose server left it or was killed, and the next one that takes it over.
import { strict as assert } from 'node:assert';
import { join } from 'node:path';
import {
  assertNothingLeft,
  failedStart,
  randomLoad,
  takeOver,
  Volume,
} from './support/ublk_volume.js';
import {
  checkExt4,
  Daemon,
  makeExt4,
  mount,
  scenario,
  startFio,
  unmount,
  waitFor,
} from './support.js';

const mib = 1 << 20;

export default [
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
];
