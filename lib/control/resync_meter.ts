/** The speed of a resync, from samples of how far it is. */

import type { NativeStatus } from '../binding/native.ts';

/** The speed is that of the last so many microseconds. */
const WINDOW_US = 3_000_000;
/** Two samples that are nearer say little. */
const STEP_US = 100_000;

interface Sample {
  nowUs: number;
  bytesDone: number;
}

export class ResyncMeter {
  private startedUs = -1;
  private samples: Sample[] = [];

  /** 0 while nothing moves, or without a resync. */
  get rateBytesPerS(): number {
    const first = this.samples[0];
    const last = this.samples.at(-1);
    if (first === undefined || last === undefined || last.nowUs <= first.nowUs) return 0;
    return Math.max(0, ((last.bytesDone - first.bytesDone) * 1e6) / (last.nowUs - first.nowUs));
  }

  learn(status: Pick<NativeStatus, 'nowUs' | 'resync'>): void {
    const { nowUs, resync } = status;
    if (resync === null) {
      this.samples = [];
      this.startedUs = -1;
      return;
    }
    if (resync.startedUs !== this.startedUs) {
      this.startedUs = resync.startedUs;
      this.samples = [{ nowUs: resync.startedUs, bytesDone: 0 }];
    }
    const last = this.samples.at(-1)!;
    const sample = { nowUs, bytesDone: resync.bytesDone };
    if (nowUs <= last.nowUs) return;
    // The newest sample is replaced until it is a step away from the one before.
    const before = this.samples.at(-2);
    if (before !== undefined && last.nowUs - before.nowUs < STEP_US) this.samples.pop();
    this.samples.push(sample);
    while (this.samples.length > 2 && nowUs - this.samples[1]!.nowUs > WINDOW_US) {
      this.samples.shift();
    }
  }
}
