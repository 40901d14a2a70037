// A filesystem that can be filled to its last block, and emptied.
import { strict as assert } from 'node:assert';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { loopDisk, makeExt4, mount } from './disk.js';
import type { ScenarioContext } from './scenario.js';

const BYTES = 8 << 20;

/** A small ext4 that can be full to its last block. */
export class FullFilesystem {
  readonly directory: string;
  private readonly t: ScenarioContext;

  private constructor(t: ScenarioContext, directory: string) {
    this.t = t;
    this.directory = directory;
  }

  static async create(t: ScenarioContext): Promise<FullFilesystem> {
    const disk = await loopDisk(t, 'filesystem', BYTES);
    await makeExt4(t, disk);
    return new FullFilesystem(t, await mount(t, disk));
  }

  private get ballast(): string {
    return join(this.directory, 'ballast');
  }

  async fill(): Promise<void> {
    for (const block of ['64k', '4k']) {
      const dd = await this.t.run(
        [
          ...(['dd', 'if=/dev/zero', `of=${this.ballast}`, `bs=${block}`] as const),
          ...['oflag=append,direct', 'conv=notrunc,fsync'],
        ],
        { anyStatus: true },
      );
      assert.match(dd.stderr, /No space left/);
    }
  }

  async empty(): Promise<void> {
    rmSync(this.ballast);
    await this.t.run(['sync', '--file-system', this.directory]);
  }
}
