// Loads the native add-on: the development build in build/Release, a prebuilt binary in prebuilds/, or
// the build in the folder that TIDEMARK_PREBUILD names (a sanitizer's). Every failure of the native side
// leaves this module as a TidemarkError; promises reject, and only methods that return no promise throw.

import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { TidemarkError } from './errors.ts';
import type {
  AttachReport,
  CreateOptions,
  CreateReport,
  HandshakeFrame,
  NativeAddon,
  NativeCallbacks,
  NativeHandshakeState,
  NativeLimits,
  NativeLinkParams,
  NativeStatus,
  NativeVolume,
  NativeVolumeOptions,
  NbdOptions,
  UblkOptions,
} from './native.ts';

const require = createRequire(import.meta.url);

// lib/binding and dist/binding are equally deep below the package's top.
const PACKAGE_DIR = fileURLToPath(new URL('../../', import.meta.url));

let loaded: NativeAddon | undefined;

/**
 * Returns the add-on, loading it on the first call; each worker loads its own.
 * @throws TidemarkError ADDON_LOAD, with the files that were looked for, when none fits this platform.
 */
export function loadAddon(): NativeAddon {
  loaded ??= wrapAddon(loadNative());
  return loaded;
}

/** What {@link loadAddon} returns, of another native part with the same interface (the simulator's). */
export function wrapAddon(native: NativeAddon): NativeAddon {
  return new Addon(native);
}

function loadNative(): NativeAddon {
  try {
    const load = require('node-gyp-build') as (dir: string) => NativeAddon;
    return load(PACKAGE_DIR);
  } catch (cause) {
    const what = cause instanceof Error ? cause.message : String(cause);
    throw new TidemarkError(
      'ADDON_LOAD',
      `cannot load the native add-on of ${PACKAGE_DIR}: ${what}. In a checkout, run 'npm run build:native'.`,
      { cause },
    );
  }
}

/** Native errors carry code, errno and syscall already (csrc/addon/failure.h); what does not is NATIVE. */
function translated(error: unknown): TidemarkError {
  if (error instanceof TidemarkError) return error;
  const message = error instanceof Error ? error.message : String(error);
  const { code, errno, syscall } = error as NodeJS.ErrnoException;
  return new TidemarkError(typeof code === 'string' ? code : 'NATIVE', message, {
    cause: error,
    ...(errno === undefined ? {} : { errno }),
    ...(syscall === undefined ? {} : { syscall }),
  });
}

function run<T>(native: () => T): T {
  try {
    return native();
  } catch (error) {
    throw translated(error);
  }
}

async function settle<T>(native: () => Promise<T>): Promise<T> {
  try {
    return await native();
  } catch (error) {
    throw translated(error);
  }
}

class Addon implements NativeAddon {
  readonly #native: NativeAddon;
  readonly version: string;

  constructor(native: NativeAddon) {
    this.#native = native;
    this.version = native.version;
  }

  open(options: NativeVolumeOptions, callbacks: NativeCallbacks): NativeVolume {
    return new Volume(run(() => this.#native.open(options, callbacks)));
  }

  create(options: CreateOptions): Promise<CreateReport> {
    return settle(() => this.#native.create(options));
  }

  dump(options: Parameters<NativeAddon['dump']>[0]): Promise<string> {
    return settle(() => this.#native.dump(options));
  }

  features(): string {
    return run(() => this.#native.features());
  }

  encodeHandshake(json: string): Uint8Array {
    return run(() => this.#native.encodeHandshake(json));
  }

  parseHandshake(bytes: Uint8Array): HandshakeFrame | null {
    return run(() => this.#native.parseHandshake(bytes));
  }
}

class Volume implements NativeVolume {
  readonly #native: NativeVolume;
  #closing: Promise<void> | undefined;
  readonly attach: AttachReport;

  constructor(native: NativeVolume) {
    this.#native = native;
    this.attach = native.attach;
  }

  status(): NativeStatus {
    return run(() => this.#native.status());
  }

  setLimits(limits: Partial<NativeLimits>): void {
    run(() => this.#native.setLimits(limits));
  }

  promote(force: boolean): Promise<void> {
    return settle(() => this.#native.promote(force));
  }

  demote(): Promise<void> {
    return settle(() => this.#native.demote());
  }

  invalidate(peerId: string): Promise<void> {
    return settle(() => this.#native.invalidate(peerId));
  }

  suspend(why: string): Promise<void> {
    return settle(() => this.#native.suspend(why));
  }

  resume(): Promise<void> {
    return settle(() => this.#native.resume());
  }

  outdatePeer(): Promise<void> {
    return settle(() => this.#native.outdatePeer());
  }

  startNbd(options: NbdOptions): Promise<string> {
    return settle(() => this.#native.startNbd(options));
  }

  startUblk(options: UblkOptions): Promise<string> {
    return settle(() => this.#native.startUblk(options));
  }

  stopFrontend(force: boolean): Promise<void> {
    return settle(() => this.#native.stopFrontend(force));
  }

  handshakeState(peerId: string): Promise<NativeHandshakeState> {
    return settle(() => this.#native.handshakeState(peerId));
  }

  linkPrepare(params: NativeLinkParams): Promise<void> {
    return settle(() => this.#native.linkPrepare(params));
  }

  resetLinkBytes(): void {
    run(() => this.#native.resetLinkBytes());
  }

  linkStart(): Promise<boolean> {
    return settle(() => this.#native.linkStart());
  }

  linkStop(why: string): void {
    run(() => this.#native.linkStop(why));
  }

  sendControl(json: string): Promise<boolean> {
    return settle(() => this.#native.sendControl(json));
  }

  // The next three run once per batch of replication bytes: no closure for each.

  feed(bytes: Uint8Array): number {
    try {
      return this.#native.feed(bytes);
    } catch (error) {
      throw translated(error);
    }
  }

  outgoing(): Uint8Array {
    try {
      return this.#native.outgoing();
    } catch (error) {
      throw translated(error);
    }
  }

  consumed(bytes: number): void {
    try {
      this.#native.consumed(bytes);
    } catch (error) {
      throw translated(error);
    }
  }

  takeSocket(fd: number): Promise<string> {
    return settle(() => this.#native.takeSocket!(fd));
  }

  dropSocket(): void {
    run(() => this.#native.dropSocket!());
  }

  /**
   * Concurrent and later calls share the first one's promise, whatever they ask for. From the call on no
   * callback runs and every method fails with CLOSED, as do the promises that still wait.
   *
   * Rejects with code UNCLEAN when the disk or its metadata failed during a clean stop; the volume is
   * closed then, too.
   */
  close(abandon?: boolean): Promise<void> {
    if (this.#closing !== undefined) return this.#closing;
    // A wrong argument closes nothing, so that its failure must not be kept.
    let closing: Promise<void>;
    try {
      closing = this.#native.close(abandon);
    } catch (error) {
      return Promise.reject(translated(error));
    }
    this.#closing = settle(() => closing);
    return this.#closing;
  }
}
