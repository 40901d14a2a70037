// A replication without disks and sockets: it notes what is asked of it, and a test says how it answers.

import { TidemarkError } from '../../../lib/binding/errors.ts';
import type { AttachReport } from '../../../lib/binding/native.ts';
import type {
  FrontendSpec,
  PeerLinkStatus,
  PolicyValues,
  Replication,
  ReplicationEvent,
  ReplicationStatus,
  VolumeSpec,
} from '../../../lib/replication/api.ts';
import { nativeStatus, peerLink } from '../policy/status_samples.ts';

interface FakeVolume {
  spec: VolumeSpec;
  status: ReplicationStatus;
}

export class FakeReplication implements Replication {
  /** 'promote r0 force', in the order of the calls; status and policy are left out. */
  readonly calls: string[] = [];
  readonly volumes = new Map<string, FakeVolume>();
  readonly policies: PolicyValues[] = [];
  attach: Partial<AttachReport> = {};
  /** Method name -> the error that its next call fails with. */
  readonly failures = new Map<string, Error>();
  /** Method name -> the error that its calls fail with until the test takes it out: recovery tries again on its own. */
  readonly refusals = new Map<string, Error>();
  /** Method name -> what its calls wait for first. */
  readonly gates = new Map<string, Promise<void>>();
  /** Of askPeers. */
  peerAnswer: string | null = null;
  private readonly eventListeners: Array<(event: ReplicationEvent) => void> = [];
  private readonly exitListeners: Array<(error: Error) => void> = [];

  private async note(
    method: string,
    ...args: Array<string | number | boolean | undefined>
  ): Promise<void> {
    this.calls.push([method, ...args.filter((arg) => arg !== undefined)].join(' '));
    await this.gates.get(method);
    const failure = this.refusals.get(method) ?? this.failures.get(method);
    if (failure === undefined) return;
    this.failures.delete(method);
    throw failure;
  }

  private volume(name: string): FakeVolume {
    const volume = this.volumes.get(name);
    if (volume === undefined) throw new TidemarkError('NO_VOLUME', `fake: ${name} is not open`);
    return volume;
  }

  async open(spec: VolumeSpec): Promise<AttachReport> {
    await this.note('open', spec.name, spec.native.suspended ? 'suspended' : undefined);
    const links: PeerLinkStatus[] = spec.peers.map((peer) => peerLink({ name: peer.name }));
    const native = nativeStatus({ suspended: spec.native.suspended === true });
    this.volumes.set(spec.name, { spec, status: { native, links } });
    return {
      volumeBytes: 64 << 20,
      blockBytes: 512,
      directIo: true,
      crashed: false,
      crashedPrimary: false,
      replayedExtents: 0,
      replayedChunks: 0,
      warnings: [],
      ...this.attach,
    };
  }

  async startLinks(volume: string): Promise<void> {
    await this.note('startLinks', volume);
  }

  async startFrontend(volume: string, frontend: FrontendSpec): Promise<string> {
    const { options } = frontend;
    const recover = 'recover' in options && options.recover ? 'recover' : undefined;
    await this.note('startFrontend', volume, frontend.kind, recover);
    const device =
      frontend.kind === 'ublk'
        ? `/dev/ublkb${Math.max(0, frontend.options.deviceId)}`
        : (frontend.options.socketPath ?? '');
    this.volume(volume).status.native.device = device;
    return device;
  }

  async stopFrontend(volume: string, force: boolean): Promise<void> {
    await this.note('stopFrontend', volume, force ? 'force' : undefined);
    this.volume(volume).status.native.device = '';
  }

  async promote(volume: string, force: boolean): Promise<void> {
    await this.note('promote', volume, force ? 'force' : undefined);
    this.volume(volume).status.native.role = 'primary';
  }

  async demote(volume: string): Promise<void> {
    await this.note('demote', volume);
    this.volume(volume).status.native.role = 'secondary';
  }

  invalidate(volume: string, peer: string): Promise<void> {
    return this.note('invalidate', volume, peer);
  }

  disconnect(volume: string, peer?: string): Promise<void> {
    return this.note('disconnect', volume, peer);
  }

  connect(volume: string, peer?: string, discardMine?: boolean): Promise<void> {
    return this.note('connect', volume, peer, discardMine ? 'discard' : undefined);
  }

  async setPolicy(_: string, values: PolicyValues): Promise<void> {
    this.policies.push(structuredClone(values));
  }

  async resume(volume: string): Promise<void> {
    await this.note('resume', volume);
    this.volume(volume).status.native.suspended = false;
  }

  async status(volume: string): Promise<ReplicationStatus> {
    return structuredClone(this.volume(volume).status);
  }

  async askPeers(volume: string, deadlineMs: number): Promise<string | null> {
    await this.note('askPeers', volume, deadlineMs);
    return this.peerAnswer;
  }

  async close(volume: string): Promise<void> {
    await this.note('close', volume);
    this.volumes.delete(volume);
  }

  shutdown(): Promise<void> {
    return this.note('shutdown');
  }

  onEvent(listener: (event: ReplicationEvent) => void): void {
    this.eventListeners.push(listener);
  }

  onExit(listener: (error: Error) => void): void {
    this.exitListeners.push(listener);
  }

  emit(event: ReplicationEvent): void {
    for (const listener of this.eventListeners) listener(event);
  }

  die(error: Error): void {
    for (const listener of this.exitListeners) listener(error);
  }
}
