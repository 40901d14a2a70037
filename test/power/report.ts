// What a replay found, as a line for people.
import type { Recording } from './recording.ts';
import { type ReplayOptions, replay } from './replay.ts';

export interface ReplayLine {
  ok: boolean;
  text: string;
}

/** Replays a recording. One in which the copies never differed at any point has proved nothing: that fails, too. */
export async function replayLine(
  recording: Recording,
  options: ReplayOptions = {},
): Promise<ReplayLine> {
  const { name, seed } = recording.note;
  try {
    const found = await replay(recording, options);
    const share = (found.markedShare * 100).toFixed(1);
    const text =
      `${name}: ${found.points} points of a log with ${found.flushes} flushes and ${found.fua} writes with FUA; ` +
      `the copies differed at ${found.differed}, ${share} % marked on average (seed ${seed})`;
    return { ok: found.differed > 0 || options.only !== undefined, text };
  } catch (error) {
    return { ok: false, text: `${name} (seed ${seed}): ${(error as Error).message}` };
  }
}
