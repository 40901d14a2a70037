/**
 * Proof of a shared secret, both ways: each side sends an HMAC-SHA256 over everything that both said in their HELLOs and over who
 * it is itself. Both nonces are in it, so that nothing recorded earlier fits; the direction is in it, so that
 * sending back what was received proves nothing.
 */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import { isIPv4 } from 'node:net';

export type LinkEnd = 'dialer' | 'listener';

/** What one side said in its HELLO. */
export interface Greeting {
  versionMin: number;
  versionMax: number;
  node: string;
  nodeId: string;
  /** 32 random bytes, hex. */
  nonce: string;
}

export interface Transcript {
  /** The version that both agreed on. */
  version: number;
  volume: string;
  dialer: Greeting;
  listener: Greeting;
}

export const NONCE_BYTES = 32;
const PROOF_LABEL = 'tidemark link proof';
const INCARNATION_LABEL = 'tidemark link incarnation';

const greetingFields = (greeting: Greeting) => [
  greeting.versionMin,
  greeting.versionMax,
  greeting.node,
  greeting.nodeId,
  greeting.nonce,
];

// JSON of an array: no two different lists of fields give the same bytes.
function transcriptBytes(label: string, transcript: Transcript, more: string[]): string {
  const { version, volume, dialer, listener } = transcript;
  return JSON.stringify([
    label,
    version,
    volume,
    greetingFields(dialer),
    greetingFields(listener),
    ...more,
  ]);
}

/** What the side `end` sends; 64 hex digits. */
export function makeProof(secret: string, end: LinkEnd, transcript: Transcript): string {
  return createHmac('sha256', secret)
    .update(transcriptBytes(PROOF_LABEL, transcript, [end]))
    .digest('hex');
}

/** Whether `proof` is what the side `end` must have sent. Takes the same time wherever it differs. */
export function checkProof(
  secret: string,
  end: LinkEnd,
  transcript: Transcript,
  proof: string,
): boolean {
  const expected = Buffer.from(makeProof(secret, end, transcript), 'hex');
  const found = Buffer.from(proof, 'hex');
  return found.length === expected.length && timingSafeEqual(found, expected);
}

/** The link's incarnation (R16): the same on both ends, not 0, another one for every link. */
export function linkIncarnation(transcript: Transcript): number {
  const digest = createHash('sha256')
    .update(transcriptBytes(INCARNATION_LABEL, transcript, []))
    .digest();
  return digest.readUInt32LE(0) || 1;
}

/** An address of a socket's end that no other machine can have. */
export function isLoopbackAddress(address: string | undefined): boolean {
  if (address === undefined) return false;
  const plain = address.toLowerCase().replace(/^::ffff:/, '');
  return plain === '::1' || (isIPv4(plain) && plain.startsWith('127.'));
}
