/**
 * The JSON messages of a handshake (docs/PROTOCOL.md). Every field that comes from the peer is checked for type and bounds
 * here; fields that are not known are ignored, so that later versions can add some.
 */
import { z } from 'zod';
import { TidemarkError } from '../binding/errors.ts';
import { GENERATION_NONE, HISTORY_LENGTH } from './flags.ts';

export const HANDSHAKE_MAGIC = 'tidemark';
/** Versions of the link protocol that this program speaks. */
export const VERSION_MIN = 1;
export const VERSION_MAX = 1;
/** One message's JSON text. */
export const MESSAGE_BYTES_MAX = 64 * 1024;
export const NAME_LENGTH_MAX = 128;
export const REASON_LENGTH_MAX = 1024;

/** Why a side ends a handshake. */
export const REFUSAL_CODES = [
  'VERSION',
  'VOLUME',
  'NODE',
  'AUTH',
  'IDENTITY',
  'CONFIG',
  'PROTOCOL',
  'STANDALONE',
  'NOT_SELECTED',
  'BUSY',
  'DUPLICATE',
  'STALE',
  'DECISION',
  'PREPARE',
  'TIMEOUT',
  'CLOSING',
] as const;
export type RefusalCode = (typeof REFUSAL_CODES)[number];

const count = z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER);
const flags = z.number().int().nonnegative().max(0xffff_ffff);
const version = z.number().int().min(1).max(65_535);
const hex = (digits: number) => z.string().regex(new RegExp(`^[0-9a-f]{${digits}}$`));
// No control characters: names and reasons end up in logs and on terminals.
const name = z
  .string()
  .min(1)
  .max(NAME_LENGTH_MAX)
  .regex(/^[^\p{Cc}\p{Cf}]+$/u);
const reason = z
  .string()
  .transform((text) => text.replace(/[\p{Cc}\p{Cf}]/gu, ' ').slice(0, REASON_LENGTH_MAX));
const role = z.enum(['primary', 'secondary']);
const disk = z.enum(['Diskless', 'Failed', 'Inconsistent', 'Outdated', 'Consistent', 'UpToDate']);

const hello = z.object({
  type: z.literal('hello'),
  magic: z.literal(HANDSHAKE_MAGIC),
  versionMin: version,
  versionMax: version,
  volume: name,
  node: name,
  /** Whom the sender takes the receiver for. */
  peer: name,
  nodeId: hex(32),
  nonce: hex(64),
  auth: z.enum(['secret', 'none']),
});

const proof = z.object({ type: z.literal('proof'), mac: hex(64) });

const state = z.object({
  type: z.literal('state'),
  role,
  disk,
  volumeBytes: count,
  chunkBytes: count,
  current: hex(16),
  bitmap: hex(16),
  history: z
    .array(hex(16))
    .max(HISTORY_LENGTH)
    .transform((list) =>
      Array.from({ length: HISTORY_LENGTH }, (_, index) => list[index] ?? GENERATION_NONE),
    ),
  flags,
  slotBound: z.boolean(),
  slotFlags: flags,
  dirtyChunks: count,
  discardMine: z.boolean(),
  protocol: z.enum(['A', 'C'], {
    error: ({ input }) =>
      input === 'B'
        ? "protocol 'B' is not implemented: set 'A' or 'C' on both nodes"
        : "expected protocol 'A' or 'C'",
  }),
  /** The sender only asks, and ends the handshake after the decision (R18). */
  probe: z.boolean(),
});

const decision = z.object({
  type: z.literal('decision'),
  kind: z.enum(['none', 'sync', 'splitBrain', 'unrelated', 'refused']),
  rule: z.number().int().min(0).max(65_535),
  side: z.enum(['none', 'source', 'target']),
  full: z.boolean(),
  /** From the source of a full resync; all zero otherwise. */
  syncGeneration: hex(16),
});

const ready = z.object({ type: z.literal('ready') });

const refused = z.object({
  type: z.literal('refused'),
  code: z.enum(REFUSAL_CODES),
  reason,
  /** Told to a peer that has proved itself: what a node that recovers must know (R18). */
  role: role.optional(),
});

const message = z.discriminatedUnion('type', [hello, proof, state, decision, ready, refused]);

export type HandshakeMessage = z.infer<typeof message>;
export type MessageOf<T extends HandshakeMessage['type']> = Extract<HandshakeMessage, { type: T }>;
export type HelloMessage = MessageOf<'hello'>;
export type StateMessage = MessageOf<'state'>;
export type DecisionMessage = MessageOf<'decision'>;

/** @throws TidemarkError HANDSHAKE that names the first thing that is wrong. */
export function parseMessage(json: string): HandshakeMessage {
  if (json.length > MESSAGE_BYTES_MAX) {
    throw new TidemarkError(
      'HANDSHAKE',
      `a handshake message of ${json.length} characters: at most ${MESSAGE_BYTES_MAX} are allowed`,
    );
  }
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (cause) {
    throw new TidemarkError('HANDSHAKE', 'a handshake message is not JSON', { cause });
  }
  const parsed = message.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  const where = issue.path.length === 0 ? 'message' : `field '${issue.path.join('.')}'`;
  throw new TidemarkError('HANDSHAKE', `a handshake message is wrong: ${where}: ${issue.message}`);
}
