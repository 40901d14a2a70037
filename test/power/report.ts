// What a replay found, as a line for people.
import type { Recording } from './recording.ts';
import { type ReplayOptions, replay } from './replay.ts';
import { missedTamperings } from './tamper.ts';

export interface ReplayLine {
  ok: boolean;
  text: string;
}

/**
 * Replays a recording. One in which the copies never differed at any point has proved nothing, and fails; so does one whose
 * replay leaves out a mark, or finds nothing in the log of a broken version.
 */
export async function replayLine(
  recording: Recording,
  options: ReplayOptions = {},
): Promise<ReplayLine> {
  const { name, seed } = recording.note;
  try {
    const found = await replay(recording, options);
    const share = (found.markedShare * 100).toFixed(1);
    const text =
      `${name}: ${found.marksReplayed} / ${found.marks} marks (${found.flushes} flushes, ${found.fua} writes with FUA) ` +
      `and ${found.points - found.marksReplayed} points between them; ` +
      `the copies differed at ${found.differed}, the daemons were started at ${found.reunited}; ${share} % marked on average (seed ${seed})`;
    if (options.only !== undefined) return { ok: true, text };
    if (found.differed === 0) return { ok: false, text };
    if (found.marksReplayed !== found.marks) {
      return { ok: false, text: `${text}; not every mark was replayed` };
    }
    const missed = recording.note.tamper ? await missedTamperings(recording) : [];
    if (missed.length === 0) return { ok: true, text };
    return { ok: false, text: `${text}; NOT caught: logs ${missed.join(', ')}` };
  } catch (error) {
    return { ok: false, text: `${name} (seed ${seed}): ${(error as Error).message}` };
  }
}
