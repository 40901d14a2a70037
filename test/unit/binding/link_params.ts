// What a handshake gives to both ends of a link, of which only the decision is the caller's.
import type { NativeHandshakeState, NativeLinkParams } from '../../../lib/binding/native.ts';

export type LinkDecision = Pick<
  NativeLinkParams,
  'incarnation' | 'protocol' | 'side' | 'full' | 'syncGeneration'
>;

export function linkParams(
  own: NativeHandshakeState,
  peer: NativeHandshakeState,
  decision: LinkDecision,
): NativeLinkParams {
  return {
    ...decision,
    serial: own.serial,
    peerId: peer.nodeId,
    peerName: 'the other',
    peerCurrent: peer.current,
    peerBitmap: peer.bitmap,
    peerHistory: peer.history,
    peerFlags: peer.flags,
    peerRole: peer.role,
    peerDisk: peer.disk,
  };
}
