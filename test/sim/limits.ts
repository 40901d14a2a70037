/** Numbers of the product that the simulator goes to the edge of. */
export const LIMITS_OF_PLAN = {
  logExtentsMin: 7,
  /** Less than the engine allows: room for two pieces of a resync, or a frame of what the theme writes, and what is kept free beside it. */
  ringBytesMin: 640 * 1024,
} as const;

/** A seed takes a second at most, of a processor that may be shared; one that takes so long goes round in circles. */
export const STUCK_MS = 300_000;
