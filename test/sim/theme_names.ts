/** What a seed is about. Every theme has all faults; its script makes one situation common. */
export const THEMES = [
  'mixed',
  'calm',
  'log-thrash',
  'crash-in-resync',
  'failovers',
  'split-brain',
  'stalls',
  'tiny-rings',
  'flush-storm',
  'zeroes',
  'unaligned',
  'resync-under-writes',
  'bad-disks',
  'power-cuts',
  'replaced-disk',
  'rot',
  'start-stop',
  'recoveries',
  'third-node',
] as const;
export type ThemeName = (typeof THEMES)[number];
