// The tools that the scenarios stand on: disks in memory, a filesystem, loads of both kinds, and the
// bookkeeping that finds what a scenario leaves behind.
import { strict as assert } from 'node:assert';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  checkExt4,
  Daemon,
  loopDisk,
  makeExt4,
  mount,
  ramDisks,
  runFio,
  scenario,
  unmount,
  waitFor,
} from './support.js';

const mib = 1 << 20;

export default [
  scenario('ext4 on a RAM disk keeps what was written over a remount', async (t) => {
    const [disk] = await ramDisks(t, 64 * mib);
    await makeExt4(t, disk);
    const first = await mount(t, disk);
    writeFileSync(join(first, 'file'), 'kept');
    await unmount(t, first);
    const second = await mount(t, disk);
    const { stdout } = await t.run(['cat', join(second, 'file')]);
    assert.equal(stdout, 'kept');
    await unmount(t, second);
    await checkExt4(t, disk);
  }),

  scenario('fio writes and verifies with libaio and with io_uring', async (t) => {
    const disk = await loopDisk(t, 'disk', 32 * mib);
    for (const ioengine of ['libaio', 'io_uring']) {
      const report = await runFio(t, ioengine, {
        ...{ filename: disk, ioengine, direct: 1, rw: 'randwrite', bs: '4k', iodepth: 8 },
        ...{ size: 4 * mib, verify: 'crc32c' },
      });
      assert.equal(report.jobs[0]?.write.io_bytes, 4 * mib, ioengine);
    }
  }),

  scenario('a killed daemon is gone, and reaped, before kill returns', async (t) => {
    const daemon = Daemon.start(t, ['bash', '-c', 'echo ready; exec sleep 1000']);
    await daemon.waitForOutput(t, /ready/);
    await daemon.kill();
    assert.equal(daemon.exit?.signal, 'SIGKILL');
    // A detached one is PID 1's child, which must reap it.
    const { stdout } = await t.run(['bash', '-c', 'setsid sleep 1000 > /dev/null 2>&1 & echo $!']);
    const pid = Number(stdout);
    process.kill(pid, 'SIGKILL');
    await waitFor(t, `process ${pid} to be reaped`, () => {
      try {
        process.kill(pid, 0);
        return false;
      } catch {
        return true;
      }
    });
  }),
];
