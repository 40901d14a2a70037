// Daemons are killed over and over, in the middle of whatever they do, while a writer that knows its versions and fio with
// verification go on. After each round: what was acknowledged is there, what was resynced is bounded by marks and hot
// extents, both disks are equal, and both maps are empty. kill-plan.ts says what a round does.
import { strict as assert } from 'node:assert';
import { setTimeout as delay } from 'node:timers/promises';
import { ControlClient } from '../../lib/control/client.ts';
import type { VolumeJson } from '../../lib/control/status.ts';
import type { ScenarioContext } from '../vm/guest/support.ts';
import { assertBetween } from './checks.ts';
import { Cluster, type ClusterOptions } from './cluster.ts';
import { FioStretch } from './fio-stretch.ts';
import { describePlan, type KillPlan, planRound } from './kill-plan.ts';
import { type KillTotals, noKills } from './kill-totals.ts';
import { BLOCK_BYTES, Ledger, type Load } from './ledger.ts';
import type { ClusterNode } from './node.ts';
import type { Device, Place } from './place.ts';

const MIB = 1 << 20;
const LOG_EXTENTS = 67;
const CHUNKS_PER_EXTENT = MIB / BLOCK_BYTES;
/** Several times what the log holds, so that it evicts all the time. */
const VOLUME_EXTENTS = 4 * LOG_EXTENTS + 4;
/** Extents at the beginning are fio's, the others the ledger's. */
const FIO_EXTENTS = VOLUME_EXTENTS / 2;
const FIO_BYTES = FIO_EXTENTS * MIB;
/** More than it keeps under way: it has learned of the first ones. */
const FIO_BEGUN_WRITES = 64;
/** Of fio's longest writes. */
const WRITE_CHUNKS_MAX = 8;
/** More than what the writers have under way at once, and what of a resync a lost link sends again. */
const UNDER_WAY_CHUNKS = 4096;
/** While a resync is to be killed, each byte takes so long, that it lasts. */
const RESYNC_DELAY_MS = 5;

const LINKED = new Set(['ExchangingMaps', 'SyncSource', 'SyncTarget', 'Connected']);

export interface KillOptions {
  seed: number;
  volume?: Record<string, unknown>;
  metadata?: ClusterOptions['metadata'];
}

/** The work of a cluster that is killed; one round after the other. */
export class Kills {
  readonly totals: KillTotals = noKills();
  private readonly t: ScenarioContext;
  private readonly place: Place;
  private readonly seed: number;
  private readonly isSynchronous: boolean;
  private readonly cluster: Cluster;
  private readonly ledger: Ledger;
  private primary: ClusterNode;
  private secondary: ClusterNode;
  private device: Device | null = null;
  private load: Load | null = null;
  private fio: FioStretch | null = null;
  private stretches = 0;
  private readonly killedStarts = new Set<ClusterNode>();
  /** What starts, stops and role changes took last. */
  private startMs: number;
  private stopMs: number;
  private roleMs: number;

  private constructor(t: ScenarioContext, place: Place, options: KillOptions, cluster: Cluster) {
    this.t = t;
    this.place = place;
    this.seed = options.seed;
    this.isSynchronous = options.volume?.protocol !== 'A';
    this.cluster = cluster;
    this.primary = cluster.alpha;
    this.secondary = cluster.beta;
    this.ledger = new Ledger(cluster.alpha.dataArea.bytes, options.seed | 1);
    const slow = place.kind === 'ublk' ? 10 : 1;
    this.startMs = 400 * slow;
    this.stopMs = 100 * slow;
    this.roleMs = 40 * slow;
  }

  static async form(t: ScenarioContext, place: Place, options: KillOptions): Promise<Kills> {
    const cluster = await Cluster.form(t, place, {
      backingBytes: VOLUME_EXTENTS * MIB,
      ...(options.metadata === undefined ? {} : { metadata: options.metadata }),
      volume: {
        ...{ extentBytes: MIB, activityLogExtents: LOG_EXTENTS, flushInterval: '250ms' },
        ...options.volume,
      },
    });
    return new Kills(t, place, options, cluster);
  }

  /** One round with all its checks; returns what it did. */
  async round(round: number): Promise<string> {
    const plan = planRound(this.seed, round, this.place, this.isSynchronous);
    this.t.log(`--- round ${round}: ${describePlan(plan)}`);
    await this.startWriters();
    await this.load!.more(plan.writes);
    const before = await this.before();
    this.killedStarts.clear();
    const { kills } = this.totals;
    if (plan.moment === 'role change') await this.killRoleChange(plan);
    else {
      await this.prepareAndKill(plan, before);
      if (plan.moment === 'failover') await this.failOver(plan);
      else await this.comeBack(plan);
    }
    await this.finish(before);
    return `${describePlan(plan)}; ${this.totals.kills - kills} kills`;
  }

  /** A clean end: disks equal, logs and maps empty in what is left on them. */
  async end(): Promise<void> {
    await this.device?.close();
    this.device = null;
    for (const node of [this.secondary, this.primary]) {
      assert.equal((await node.stop()).status, 0, `${node.name} did not stop cleanly`);
    }
    await this.cluster.assertSameData();
    for (const node of this.cluster.nodes) {
      const { metadata } = (await node.dump()) as unknown as Dump;
      for (const { slot, dirty_chunks, all_dirty } of metadata.dirty_maps) {
        assert.deepEqual(
          { dirty_chunks, all_dirty },
          { dirty_chunks: 0, all_dirty: false },
          `the map of slot ${slot} on the disk of ${node.name}`,
        );
      }
    }
  }

  // --- writers ---

  private get patienceMs(): number {
    return this.place.patienceMs;
  }

  private async startWriters(): Promise<void> {
    this.device ??= await this.primary.open();
    this.stretches += 1;
    // What is written has to be read again, for which the emulated machine has little time.
    const isSlow = this.place.kind === 'ublk';
    const { writes } = (await this.primary.status()).io;
    this.fio = new FioStretch(this.t, `stretch${this.stretches}`, await this.primary.fio(), {
      ...{ offset: 0, bytes: FIO_BYTES, seed: this.seed + this.stretches },
      ...(isSlow ? { rate: 20 } : {}),
    });
    await this.primary.until('writes of fio', ({ io }) => io.writes > writes + FIO_BEGUN_WRITES);
    const first = FIO_EXTENTS * CHUNKS_PER_EXTENT;
    const count = this.ledger.blocks - first;
    const stride = isSlow ? 16 : 1;
    this.load = this.ledger.load(this.device, { first, count, stride, depth: 8, flushEvery: 32 });
  }

  /** Ends them and verifies at the primary of now. `broken`: their device may have gone away under them. */
  private async settleWriters(broken: boolean): Promise<void> {
    const { load, fio } = this;
    this.load = null;
    this.fio = null;
    if (load === null || fio === null) return;
    const failure = await load.stop();
    await fio.end(broken, this.patienceMs);
    if (failure !== null && !broken) throw failure;
    if (broken) {
      await this.device?.close().catch(() => {});
      this.device = null;
    }
    this.device ??= await this.primary.open();
    const options = await this.primary.fio();
    const verified = await fio.verify(options, this.patienceMs * 3);
    this.totals.fioRuns += 1;
    if (verified === null || verified === 0) this.totals.fioUnverified += 1;
    this.totals.fioWritesVerified += verified ?? 0;
    await this.verifyLedger();
  }

  private async verifyLedger(): Promise<void> {
    const what = `the device of ${this.primary.name}`;
    const { device, ledger } = this;
    // What nobody wrote is compared between the disks; the emulated machine has no time for it here.
    if (this.place.kind === 'ublk') await ledger.verifyWritten(device!, what);
    else await ledger.verify(device!, what, FIO_EXTENTS * CHUNKS_PER_EXTENT);
  }

  // --- killing ---

  private victims({ victim }: KillPlan): ClusterNode[] {
    const { primary, secondary } = this;
    if (victim === 'both') return [primary, secondary];
    return [victim === 'primary' ? primary : secondary];
  }

  private async kill(nodes: readonly ClusterNode[]): Promise<void> {
    const daemons = nodes.flatMap(({ daemon }) => daemon ?? []);
    await Promise.all(nodes.map((node) => node.kill()));
    this.totals.kills += daemons.filter(({ exit }) => exit?.signal === 'SIGKILL').length;
  }

  private async prepareAndKill(plan: KillPlan, before: Before): Promise<void> {
    const { primary, cluster } = this;
    const victims = this.victims(plan);
    const { link } = cluster;
    switch (plan.moment) {
      case 'apart':
      case 'resync':
        link.cut();
        await primary.unlinked();
        await this.load!.more(this.place.blocks);
        if (plan.moment === 'resync') await this.reachResync(plan);
        await this.kill(victims);
        link.setDelay(0);
        link.join();
        break;
      case 'clean stop':
        // A block device that is open is not taken away.
        if (this.place.kind === 'ublk' && victims.includes(primary)) {
          await this.settleWriters(false);
          await this.device?.close();
          this.device = null;
        }
        for (const { daemon } of victims) daemon!.signal('SIGTERM');
        await this.stopOrKill(victims, plan.at);
        break;
      default:
        await delay(plan.at * 20);
        await this.kill(victims);
    }
    // Only now: how much was written up to the kill, nobody knows before.
    for (const node of this.cluster.nodes) before.marks += await this.marksOf(node);
  }

  /** Chunks that are marked at a node, or on the disk of one that was killed. */
  private async marksOf(node: ClusterNode): Promise<number> {
    if (node.daemon !== null) return (await node.status()).peers[0]!.dirty_chunks;
    const { metadata } = (await node.dump()) as unknown as Dump;
    return metadata.dirty_maps.reduce((sum, { dirty_chunks }) => sum + dirty_chunks, 0);
  }

  /** Kills them on their way to a clean end; who was faster has ended cleanly. */
  private async stopOrKill(victims: readonly ClusterNode[], at: number): Promise<void> {
    const started = performance.now();
    const ends = Promise.all(
      victims.map(async ({ daemon }) => {
        const { signal } = await daemon!.exited;
        // The shortest that was seen, so that most kills come before the end.
        if (signal === null) this.stopMs = Math.min(this.stopMs, performance.now() - started);
      }),
    );
    await Promise.race([ends, delay(at * this.stopMs)]);
    await this.kill(victims);
    await ends;
  }

  /** Returns in the middle of a resync, mostly. */
  private async reachResync({ at }: KillPlan): Promise<void> {
    const { link } = this.cluster;
    link.setDelay(RESYNC_DELAY_MS);
    const control = await ControlClient.connect(this.primary.socket);
    try {
      let under = false;
      let started = () => {};
      const sync = new Promise<void>((resolve) => {
        started = resolve;
      });
      await control.subscribe(({ kind }) => {
        if (kind === 'sync-started') {
          under = true;
          started();
        } else if (kind === 'sync-finished') under = false;
      });
      link.join();
      const slow = this.place.kind === 'ublk' ? 20 : 1;
      await Promise.race([sync, delay(this.patienceMs, undefined, { ref: false })]);
      await delay(at * 60 * slow);
      if (under) this.totals.resyncsHit += 1;
    } finally {
      control.close();
    }
  }

  /** Killed while the roles are swapped; afterwards whoever can is primary. */
  private async killRoleChange(plan: KillPlan): Promise<void> {
    const { primary, secondary } = this;
    await this.settleWriters(false);
    await this.device?.close();
    this.device = null;
    const victims = this.victims(plan);
    const began = performance.now();
    const swap = (async () => {
      await primary.call('secondary');
      await secondary.call('primary');
      this.roleMs = performance.now() - began;
    })().catch(() => {});
    await delay(plan.at * this.roleMs);
    await this.kill(victims);
    await swap;
    for (const node of victims) await this.start(node, plan, false);
    await this.linked();
    const roles = await Promise.all([primary.status(), secondary.status()]);
    const primaries = roles.filter(({ role }) => role === 'Primary').length;
    assert.ok(primaries <= 1, 'both are primary');
    // The swap is finished, unless it had not begun.
    if (primaries === 0 || roles[1].role === 'Primary') this.swapRoles();
    await this.promote(this.primary);
    await this.startWriters();
    await this.load!.more(plan.writes);
  }

  private swapRoles(): void {
    [this.primary, this.secondary] = [this.secondary, this.primary];
  }

  // --- coming back ---

  /** Starts a node; before it is left alone, as many of its starts are killed as the plan says. */
  private async start(node: ClusterNode, plan: KillPlan, isPrimary: boolean): Promise<void> {
    for (const part of plan.starts) {
      // What its log made dirty stays so on disk, and is not counted by the start after it.
      this.killedStarts.add(node);
      node.launch(...(isPrimary && plan.promotes ? ['--primary'] : []));
      await delay(part * this.startMs * 1.2);
      await this.kill([node]);
    }
    const began = performance.now();
    await node.up();
    this.startMs = performance.now() - began;
  }

  /** Primary, serving, with nothing suspended. */
  private async promote(node: ClusterNode): Promise<void> {
    // A device that waited for its successor makes it primary again by itself.
    if ((await node.status()).role !== 'Primary') await node.call('primary');
    await node.until('primary again', ({ role, device, suspended }) => {
      return role === 'Primary' && device !== null && !suspended;
    });
  }

  private async comeBack(plan: KillPlan): Promise<void> {
    const { primary, secondary } = this;
    const victims = this.victims(plan);
    const order = plan.first === 'primary' ? [primary, secondary] : [secondary, primary];
    for (const node of order.filter((each) => victims.includes(each))) {
      await this.start(node, plan, node === primary);
      if (node !== primary) continue;
      await this.promote(primary);
      // Over ublk they did not notice.
      if (this.place.kind === 'NBD') await this.settleWriters(true);
      if (this.load === null) await this.startWriters();
    }
    await this.load!.more(plan.writes);
  }

  /** The secondary goes on in the primary's place. */
  private async failOver(plan: KillPlan): Promise<void> {
    const old = this.primary;
    await this.secondary.unlinked();
    this.swapRoles();
    await this.promote(this.primary);
    if (this.place.kind === 'NBD') {
      await this.settleWriters(true);
      await this.startWriters();
      await this.load!.more(plan.writes);
      await this.start(old, plan, false);
    } else {
      // Its device waits for it, and its I/O may not go on: there is another primary.
      await this.start(old, plan, false);
      await old.until('suspended', ({ suspended, suspend_reason }) => {
        return suspended && /is primary/.test(suspend_reason);
      });
      await old.call('secondary', { force: true });
      await this.settleWriters(true);
      await this.startWriters();
    }
    await this.load!.more(plan.writes);
  }

  private async linked(): Promise<void> {
    for (const node of [this.primary, this.secondary]) {
      await node.until('linked', (_, { connection }) => LINKED.has(connection));
    }
  }

  // --- checks ---

  private async before(): Promise<Before> {
    const [primary, secondary] = await Promise.all([
      this.primary.status(),
      this.secondary.status(),
    ]);
    assertBetween(primary.activity_log.hot, 1, LOG_EXTENTS, 'hot extents');
    const counted = new Map<number, Counted>();
    for (const [node, { io, link }] of [
      [this.primary, primary],
      [this.secondary, secondary],
    ] as const) {
      counted.set(node.daemon!.pid, {
        written: io.written_bytes,
        resynced: link.resync_sent_bytes,
      });
    }
    const pending = primary.peers[0]!.in_flight_writes;
    return { counted, marks: UNDER_WAY_CHUNKS + pending * WRITE_CHUNKS_MAX };
  }

  private async finish(before: Before): Promise<void> {
    await this.linked();
    this.t.log('linked');
    await this.settleWriters(false);
    await this.device!.flush();
    this.t.log('verified and flushed');
    await this.cluster.synced();
    this.t.log('in step');
    await this.assertBounded(before);
    await this.cluster.assertSameData();
  }

  /** What was resynced are marks, hot extents of those who were killed, and what was written meanwhile. */
  private async assertBounded(before: Before): Promise<void> {
    let bound = before.marks;
    let resynced = 0;
    for (const node of this.cluster.nodes) {
      const volume: VolumeJson = await node.status();
      const { written, resynced: sent } = before.counted.get(node.daemon!.pid) ?? {
        written: 0,
        resynced: 0,
      };
      const isNew = !before.counted.has(node.daemon!.pid);
      const hottest = LOG_EXTENTS * CHUNKS_PER_EXTENT;
      assertBetween(volume.replay_marked_chunks, 0, hottest, 'chunks that a replay marked');
      const replayed = this.killedStarts.has(node) ? hottest : volume.replay_marked_chunks;
      bound += (isNew ? replayed : 0) + (volume.io.written_bytes - written) / BLOCK_BYTES;
      resynced += (volume.link.resync_sent_bytes - sent) / BLOCK_BYTES;
    }
    assertBetween(resynced, 0, bound, 'chunks that were resynced');
    this.totals.resyncedChunks += resynced;
  }
}

interface Counted {
  written: number;
  resynced: number;
}

interface Before {
  /** By process id: those who were not killed go on counting. */
  counted: Map<number, Counted>;
  /** Chunks that may be marked beyond what is counted as written. */
  marks: number;
}

interface Dump {
  metadata: { dirty_maps: Array<{ slot: number; dirty_chunks: number; all_dirty: boolean }> };
}
