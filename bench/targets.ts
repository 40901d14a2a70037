/** The ratios to be reached, and how they are judged. docs/performance.md has this table. */

import { type Check, checkLimit, LIMIT_PARTS } from './checks.ts';
import { figureOf, type Metric, type Sample } from './figures.ts';
import type { Where } from './place.ts';
import type { Result } from './result.ts';
import { isWanted, type Missing } from './rounds.ts';

export interface Side {
  subject: string;
  work: string;
}

export interface Target {
  where: Where;
  /** Of both sides. */
  section: string;
  title: string;
  own: Side;
  peer: Side;
  /** More of it is better. */
  metric: Metric;
  at_least: number;
}

export interface Verdict {
  target: Target;
  /** null: one of the two was not measured. */
  ratio: number | null;
  passed: boolean;
}

function compare(where: Where, section: string, metric: Metric) {
  return (
    title: string,
    own: [subject: string, work: string],
    peer: [subject: string, work: string],
    atLeast: number,
  ): Target => ({
    where,
    section,
    title,
    own: { subject: own[0], work: own[1] },
    peer: { subject: peer[0], work: peer[1] },
    metric,
    at_least: atLeast,
  });
}

const vm = compare('vm', 'devices', 'iops');
const here = compare('here', 'devices', 'iops');

export const TARGETS: readonly Target[] = [
  ...['write-4k-qd1', 'write-4k-qd16', 'write-4k-qd64', 'write-128k'].map((work) =>
    vm(
      `peer away, ${work}, of a bare ublk loop`,
      ['tidemark-away', work],
      ['ublk-loop', work],
      0.95,
    ),
  ),
  ...(
    [
      ['write-4k-qd1', 0.5],
      ['write-4k-qd16', 1.2],
      ['write-4k-qd64', 1.5],
      ['write-128k', 1.5],
    ] as const
  ).map(([work, atLeast]) =>
    vm(`protocol C, ${work}, of DRBD's C`, ['tidemark-c', work], ['drbd-c', work], atLeast),
  ),
  vm(
    "protocol A, write-4k-qd16, of DRBD's A",
    ['tidemark-a', 'write-4k-qd16'],
    ['drbd-a', 'write-4k-qd16'],
    1.2,
  ),
  ...(['c', 'a'] as const).map((protocol) =>
    vm(
      `protocol ${protocol.toUpperCase()}, write-4k-qd16, of MD raid1 over nbd`,
      [`tidemark-${protocol}`, 'write-4k-qd16'],
      ['md', 'write-4k-qd16'],
      5,
    ),
  ),
  compare('vm', 'resync', 'bytes_per_s')(
    "resync of 200 MiB, of DRBD's",
    ['tidemark-resync', 'resync-full'],
    ['drbd-resync', 'resync-full'],
    1.5,
  ),
  here(
    'protocol C, write-4k-qd32, of nbdkit without replication',
    ['tidemark-c', 'write-4k-qd32'],
    ['nbdkit', 'write-4k-qd32'],
    1,
  ),
  here(
    "protocol C, write-4k-qd32, of qemu's mirror",
    ['tidemark-c', 'write-4k-qd32'],
    ['qemu-mirror', 'write-4k-qd32'],
    4,
  ),
  here(
    "protocol C, write-256k, of qemu's mirror",
    ['tidemark-c', 'write-256k'],
    ['qemu-mirror', 'write-256k'],
    5,
  ),
  ...['read-4k-qd32', 'read-256k'].map((work) =>
    here(`protocol C, ${work}, of nbdkit`, ['tidemark-c', work], ['nbdkit', work], 1),
  ),
  compare('here', 'resync', 'bytes_per_s')(
    'resync, of plain Node sockets',
    ['tidemark-resync', 'resync-full'],
    ['node-sockets', 'carry-64k'],
    0.6,
  ),
  compare('here', 'log', 'iops')(
    'random writes over ten times the log, of the same with everything hot',
    ['tidemark-cold', 'write-4k-qd32'],
    ['tidemark-hot', 'write-4k-qd32'],
    0.9,
  ),
];

/** The ratio of the medians; null where one of them is missing. */
export function ratioOf(
  samples: readonly Sample[],
  { own, peer, metric }: Pick<Target, 'own' | 'peer' | 'metric'>,
): number | null {
  const ours = figureOf(samples, own.subject, own.work, metric);
  const theirs = figureOf(samples, peer.subject, peer.work, metric);
  if (ours === null || theirs === null || theirs.median === 0) return null;
  return ours.median / theirs.median;
}

/**
 * Each target of the place. What was not measured has failed, unless nobody wanted it measured: a target with one of its two
 * sides outside `only` is left out.
 */
export function judge(
  samples: readonly Sample[],
  where: Where,
  only: readonly string[] = [],
): Verdict[] {
  const asked = (section: string, { subject, work }: Side) =>
    isWanted(only, `${section}/${subject}/${work}`);
  return TARGETS.filter(
    (target) =>
      target.where === where &&
      asked(target.section, target.own) &&
      asked(target.section, target.peer),
  ).map((target) => {
    const ratio = ratioOf(samples, target);
    return { target, ratio, passed: ratio !== null && ratio >= target.at_least };
  });
}

/** All targets of a run, those too that are no ratios; and what is missing, though no target needs it. */
export function checksOf(
  { samples, where, limits, missing }: Pick<Result, 'samples' | 'where' | 'limits' | 'missing'>,
  only: readonly string[] = [],
): Check[] {
  const verdicts = judge(samples, where, only);
  const ratios = verdicts.map(({ target, ratio, passed }) => ({
    what: target.title,
    passed,
    found: ratio === null ? 'not measured' : ratio.toFixed(2),
    wanted: `at least ${target.at_least}`,
  }));
  const isTold = ({ subject, work }: Missing) =>
    LIMIT_PARTS.some((part) => part === subject) ||
    verdicts.some(
      ({ ratio, target: { own, peer } }) =>
        ratio === null &&
        [own, peer].some(
          (side) => side.subject === subject && (work === null || side.work === work),
        ),
    );
  const untold = missing
    .filter((one) => !isTold(one))
    .map(({ subject, work, reason }) => ({
      what: work === null ? subject : `${subject}, ${work}`,
      passed: false,
      found: reason.split('\n', 1)[0] ?? '',
      wanted: 'figures without a target',
    }));
  return [...ratios, ...limits.map(checkLimit), ...untold];
}

const PLACES = { here: 'here', vm: 'VM' };

/** The table for docs/performance.md. */
export function targetTable(): string {
  const rows = TARGETS.map(
    ({ where, title, at_least }) => `| ${PLACES[where]} | ${title} | ${at_least} |`,
  );
  return ['| where | Tidemark | at least |', '| --- | --- | --- |', ...rows].join('\n');
}
