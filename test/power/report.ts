// What a replay found, as a line for people.
import type { Recording } from './recording.ts';
import { type ReplayOptions, type ReplayResult, replay } from './replay.ts';
import { missedTamperings } from './tamper.ts';

export interface ReplayLine {
  ok: boolean;
  text: string;
}

/** Why a replay that found nothing proves nothing; null when it does. */
export function unprovedBy(
  found: Pick<ReplayResult, 'marks' | 'marksReplayed' | 'differed'>,
): string | null {
  if (found.marks === 0) return 'the log has no mark';
  if (found.marksReplayed !== found.marks) return 'not every mark was replayed';
  return found.differed === 0 ? 'the copies never differed' : null;
}

/** Replays a recording. It fails, too, when it proves nothing, or when it does not notice the log of a broken version. */
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
    const unproved = unprovedBy(found);
    if (unproved !== null) return { ok: false, text: `${text}; ${unproved}` };
    const missed = recording.note.tamper ? await missedTamperings(recording) : [];
    if (missed.length === 0) return { ok: true, text };
    return { ok: false, text: `${text}; NOT caught: logs ${missed.join(', ')}` };
  } catch (error) {
    return { ok: false, text: `${name} (seed ${seed}): ${(error as Error).message}` };
  }
}
