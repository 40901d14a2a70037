// What a run of kills did, and whether that was enough to prove anything.

export interface KillTotals {
  /** Processes that were alive when SIGKILL came. */
  kills: number;
  resyncedChunks: number;
  /** Runs of fio that were ended, and those of them of which nothing could be verified. */
  fioRuns: number;
  fioUnverified: number;
  fioWritesVerified: number;
  /** Rounds in which a resync was under way. */
  resyncsHit: number;
}

/** A run of fio is ended before one of its writers has noted what was acknowledged: now and then, and no more. */
const UNVERIFIED_SHARE_MAX = 0.05;
/** So many runs of fio may be unverified in the shortest of runs. */
const UNVERIFIED_ALLOWED = 2;
/** Kills of which one at least comes in the middle of a resync: one round in seven tries to. */
const KILLS_WITH_RESYNC = 30;

export function noKills(): KillTotals {
  return {
    ...{ kills: 0, resyncedChunks: 0, resyncsHit: 0 },
    ...{ fioRuns: 0, fioUnverified: 0, fioWritesVerified: 0 },
  };
}

export function sumOf(one: KillTotals, other: KillTotals): KillTotals {
  const sum = noKills();
  for (const key of Object.keys(sum) as Array<keyof KillTotals>) sum[key] = one[key] + other[key];
  return sum;
}

export function describeTotals(totals: KillTotals): string {
  const { kills, resyncsHit, resyncedChunks, fioRuns, fioUnverified, fioWritesVerified } = totals;
  return (
    `${kills} processes killed, ${resyncsHit} rounds hit a resync, ${resyncedChunks} chunks resynced, ` +
    `${fioWritesVerified} writes of fio verified, ${fioUnverified} of its ${fioRuns} runs not`
  );
}

/** There were kills enough for one to come in the middle of a resync, and none did. */
export function missedResync({ kills, resyncsHit }: KillTotals): boolean {
  return kills >= KILLS_WITH_RESYNC && resyncsHit === 0;
}

/** What a run that found nothing left unproved, in words; empty when it did all it is for. */
export function unproved(totals: KillTotals): string[] {
  const { kills, fioRuns, fioUnverified, fioWritesVerified } = totals;
  const missing: string[] = [];
  if (fioWritesVerified === 0) missing.push('no write of fio was verified');
  const allowed = Math.max(UNVERIFIED_ALLOWED, Math.floor(fioRuns * UNVERIFIED_SHARE_MAX));
  if (fioUnverified > allowed) {
    missing.push(
      `${fioUnverified} of ${fioRuns} runs of fio left nothing to verify; at most ${allowed} may (a writer saved no state)`,
    );
  }
  if (missedResync(totals)) missing.push(`none of ${kills} kills came during a resync`);
  return missing;
}
