// Two disks whose writes and flushes the kernel's dm-log-writes records in one log, in one order.
//
//   [loop]         [loop]      a disk without FUA: it becomes a write and a flush, and the log is in strict order
//   primary      secondary     dm-linear: the halves of one device
//   └──── recorder ──────┘     dm-log-writes
//        RAM disk              and another for the log
//
// A flush in the log does not tell whose it is. So the disk that is not cut is one without a cache: the kernel drops the
// flushes of a device whose queue is "write through", and what was written there counts as durable at once.
import { closeSync, openSync, readFileSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { measureLog } from '../../../power/log_writes.ts';
import { type Cut, LOG, notePath, type RecordingJson } from '../../../power/recording.ts';
import { MappedDevice } from './device_mapper.js';
import { modprobe, ramDisks } from './disk.js';
import type { ScenarioContext } from './scenario.js';

const MIB = 1 << 20;

export interface RecorderOptions {
  diskBytes: number;
  logBytes: number;
  cut: Cut;
  /** Whether the disks take writes with FUA. */
  fua: boolean;
}

export class Recorder {
  readonly options: RecorderOptions;
  /** The primary's disk, and the secondary's. */
  readonly disks: readonly [string, string];
  private readonly t: ScenarioContext;
  private readonly target: MappedDevice;
  private readonly removals: ReadonlyArray<() => Promise<void>>;
  private readonly log: string;

  private constructor(
    t: ScenarioContext,
    options: RecorderOptions,
    parts: Pick<Recorder, 'disks'> & {
      target: MappedDevice;
      removals: Array<() => Promise<void>>;
      log: string;
    },
  ) {
    this.t = t;
    this.options = options;
    this.disks = parts.disks;
    this.target = parts.target;
    this.removals = parts.removals;
    this.log = parts.log;
  }

  static async create(t: ScenarioContext, options: RecorderOptions): Promise<Recorder> {
    const { diskBytes, cut } = options;
    if (cut === 'secondary' && options.fua) {
      throw new Error('with FUA the log shows a primary that is not cut as it was earlier');
    }
    const [below, log] = await ramDisks(t, Math.max(options.logBytes, 2 * diskBytes));
    const target = await MappedDevice.create(t, 'recorder', [
      [2 * diskBytes, `log-writes ${below} ${log}`],
    ]);
    const removals: Array<() => Promise<void>> = [() => target.remove()];
    const disks: string[] = [];
    for (const [index, name] of (['primary', 'secondary'] as const).entries()) {
      const half = await MappedDevice.create(t, name, [
        [diskBytes, `linear ${target.path} ${(index * diskBytes) / 512}`],
      ]);
      removals.unshift(() => half.remove());
      if (cut !== 'both' && cut !== name) withoutCache(half);
      if (options.fua) {
        disks.push(half.path);
        continue;
      }
      const loop = await loopOver(t, half.path);
      removals.unshift(loop.detach);
      disks.push(loop.path);
    }
    return new Recorder(t, options, {
      disks: disks as [string, string] & string[],
      target,
      removals,
      log,
    });
  }

  /**
   * Puts all that was written before into the log: a disk without a cache flushes nothing, and its writes would come in behind a
   * mark that they were ahead of. The log says that the other disk flushed, so this is for before what is judged, only.
   */
  async settle(): Promise<void> {
    const whole = await open(this.target.path, 'r');
    try {
      await whole.sync();
    } finally {
      await whole.close();
    }
  }

  async mark(text: string): Promise<void> {
    await this.target.message('mark', text);
  }

  /** Takes the devices apart, which completes the log, and puts it where the host sees it. */
  async save(note: Omit<RecordingJson, keyof RecorderOptions>): Promise<void> {
    for (const remove of this.removals) await remove();
    const from = openSync(this.log, 'r');
    const to = openSync(join(this.t.logs, LOG), 'w');
    try {
      const bytes = measureLog((offset, length) => readAt(from, offset, length));
      for (let at = 0; at < bytes; at += MIB) {
        // The share is slow, and most of a log is repetition. Parts of a gzip file add up to one.
        writeSync(to, gzipSync(readAt(from, at, Math.min(MIB, bytes - at)), { level: 1 }));
      }
      this.t.log(`recorded ${bytes} bytes`);
    } finally {
      closeSync(from);
      closeSync(to);
    }
    const { diskBytes, cut, fua } = this.options;
    const whole: RecordingJson = { ...note, diskBytes, cut, fua };
    writeFileSync(notePath(this.t.logs), JSON.stringify(whole));
  }
}

function readAt(fd: number, offset: number, bytes: number): Buffer {
  const buffer = Buffer.alloc(bytes);
  const count = readSync(fd, buffer, 0, bytes, offset);
  if (count !== bytes) throw new Error(`the log device ends at byte ${offset + count}`);
  return buffer;
}

function withoutCache(device: MappedDevice): void {
  const setting = join(device.queue, 'write_cache');
  writeFileSync(setting, 'write through');
  const now = readFileSync(setting, 'utf8').trim();
  if (now !== 'write through') throw new Error(`${setting} stays '${now}'`);
}

async function loopOver(t: ScenarioContext, device: string) {
  await modprobe(t, 'loop');
  const { stdout } = await t.run(['losetup', '--find', '--show', '--direct-io=on', device]);
  const path = stdout.trim();
  let attached = true;
  const detach = async () => {
    if (!attached) return;
    attached = false;
    await t.run(['losetup', '--detach', path]);
  };
  t.undo(`detach ${path}`, detach);
  return { path, detach };
}
