/** The add-on of a machine as lib/ opens it, with somebody looking on: what is asked of the native volume, and what it answers and tells. */
import type {
  NativeAddon,
  NativeCallbacks,
  NativeEvent,
  NativeLinkParams,
  NativeVolume,
  NativeVolumeOptions,
} from '../../lib/binding/native.ts';

export interface Observer {
  opened(native: NativeVolume): void;
  events(events: readonly NativeEvent[]): void;
  /** linkPrepare is about to be called, and succeeded. */
  preparing(): void;
  prepared(params: NativeLinkParams): void;
  /** About to be called. */
  starting(params: NativeLinkParams): void;
  started(params: NativeLinkParams): void;
  /** About to be called, and done: promote, demote, invalidate, resume. */
  before(what: RoleCall, force: boolean): void;
  after(what: RoleCall, force: boolean, error: Error | null): void;
  /** A frontend runs, or none any more. `recovered`: it took over a device that waited. */
  frontend(path: string | null, recovered: boolean): void;
  /** The frontend is going to be stopped; `frontend` tells how that ended. */
  frontendStopping(): void;
  frontendKept(): void;
  /** outdatePeer succeeded. */
  toldPeer(): void;
}

export type RoleCall = 'promote' | 'demote' | 'invalidate' | 'resume';

/** Methods of the returned add-on behave as the machine's own. */
export function observed(addon: NativeAddon, observer: Observer): NativeAddon {
  return {
    version: addon.version,
    create: (options) => addon.create(options),
    dump: (options) => addon.dump(options),
    features: () => addon.features(),
    encodeHandshake: (json) => addon.encodeHandshake(json),
    parseHandshake: (bytes) => addon.parseHandshake(bytes),
    open: (options, callbacks) => open(addon, options, callbacks, observer),
  };
}

function open(
  addon: NativeAddon,
  options: NativeVolumeOptions,
  callbacks: NativeCallbacks,
  observer: Observer,
): NativeVolume {
  const native = addon.open(options, {
    events: (events) => {
      observer.events(events);
      callbacks.events(events);
    },
    outgoing: () => callbacks.outgoing(),
    room: () => callbacks.room(),
  });
  observer.opened(native);
  let params: NativeLinkParams | null = null;
  const role = async (what: RoleCall, force: boolean, call: () => Promise<void>) => {
    observer.before(what, force);
    try {
      await call();
    } catch (error) {
      observer.after(what, force, error as Error);
      throw error;
    }
    observer.after(what, force, null);
  };
  const frontend = async (starting: Promise<string>, recovered: boolean) => {
    const path = await starting;
    observer.frontend(path, recovered);
    return path;
  };
  return {
    attach: native.attach,
    status: () => native.status(),
    setLimits: (limits) => native.setLimits(limits),
    promote: (force) => role('promote', force, () => native.promote(force)),
    demote: () => role('demote', false, () => native.demote()),
    invalidate: (peerId) => role('invalidate', false, () => native.invalidate(peerId)),
    suspend: (why) => native.suspend(why),
    resume: () => role('resume', false, () => native.resume()),
    outdatePeer: async () => {
      await native.outdatePeer();
      observer.toldPeer();
    },
    startNbd: (nbd) => frontend(native.startNbd(nbd), false),
    startUblk: (ublk) => frontend(native.startUblk(ublk), ublk.recover === true),
    stopFrontend: async (force) => {
      observer.frontendStopping();
      try {
        await native.stopFrontend(force);
      } catch (error) {
        observer.frontendKept();
        throw error;
      }
      observer.frontend(null, false);
    },
    handshakeState: (peerId) => native.handshakeState(peerId),
    linkPrepare: async (next) => {
      params = next;
      observer.preparing();
      await native.linkPrepare(next);
      observer.prepared(next);
    },
    resetLinkBytes: () => native.resetLinkBytes(),
    linkStart: async () => {
      observer.starting(params!);
      const started = await native.linkStart();
      if (started) observer.started(params!);
      return started;
    },
    linkStop: (why) => native.linkStop(why),
    sendControl: (json) => native.sendControl(json),
    feed: (bytes) => native.feed(bytes),
    outgoing: () => native.outgoing(),
    consumed: (bytes) => native.consumed(bytes),
    close: (abandon) => native.close(abandon),
  };
}
