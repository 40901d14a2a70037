/** What must hold at every step, at every crash that could happen now, and of every number that is to stay within bounds. */
import { type Lineage, SECTOR_BYTES } from './lineage.ts';
import { SimChecks, type SimCounters } from './machine.ts';
import type { SimNode } from './node.ts';
import type { Random } from './random.ts';
import type { Simulation } from './simulation.ts';
import { Violation } from './violation.ts';

/** Once in so many steps both machines lose their power, in a copy of the world. */
const VIRTUAL_CRASH_ONE_IN = 400;
/** ... and while a disk runs whose flush failed: the daemon that knows of it does not live long. */
const FAILED_CRASH_ONE_IN = 20;
const SLOW_CHECK_STEPS = 64;
const MS = 1000;
/** What a role change waits for requests (csrc/core/roles.cc). */
const QUIET_MS = 30_000;
/** csrc/core/volume_impl.h: peer timeouts without an acknowledgement. */
const STALL_TIMEOUTS = 7;
/** Of silence, after which a link must be down: what is between two looks counts less. */
const SILENT_TIMEOUTS = 2;
/** csrc/core/pace.h: what a resync may have under way at least. A larger chunk goes there in several journeys. */
const RESYNC_WINDOW_MIN = 128 << 10;
/** csrc/core/volume_impl.h: kTransferEntries. */
const TRANSFER_WRITES_MAX = 8192;
/** Room for the peer's writes under way (1,024 of them, of what this workload sends), resync pieces and metadata. */
const BUFFER_BYTES_MAX = 64 << 20;

/** Since when a number of a link has stood still, by node. */
class Standstill {
  readonly #last: Array<{ incarnation: number; value: number; sinceUs: number } | undefined> = [];

  forget(node: number): void {
    this.#last[node] = undefined;
  }

  sinceUs(node: number, incarnation: number, value: number, nowUs: number): number {
    const last = this.#last[node];
    const stands = last?.incarnation === incarnation && last.value === value;
    const sinceUs = stands ? last.sinceUs : nowUs;
    this.#last[node] = { incarnation, value, sinceUs };
    return sinceUs;
  }
}

export class Checks {
  readonly #sim: Simulation;
  readonly #random: Random;
  /** Since when a node's requests have had no reason to wait. */
  readonly #excusedUs: number[] = [];
  /** Resyncs under way, by source. */
  readonly #resyncs = new Standstill();
  /** What a link has brought. */
  readonly #silences = new Standstill();
  virtualCrashes = 0;
  bufferBytesMax = 0;

  constructor(sim: Simulation, random: Random) {
    this.#sim = sim;
    this.#random = random;
  }

  step(): void {
    const { nodes, step } = this.#sim;
    for (let a = 0; a < nodes.length; a++) {
      for (let b = a + 1; b < nodes.length; b++) this.#pair(nodes[a]!, nodes[b]!);
    }
    if (step % SLOW_CHECK_STEPS === 0) for (const node of nodes) this.#slow(node);
  }

  #pair(a: SimNode, b: SimNode): void {
    const uncovered = SimChecks.uncovered(a.machine, b.machine);
    if (uncovered.length > 0) {
      throw new Violation(
        'uncovered',
        `${chunksText(uncovered)} of ${a.name} and ${b.name} differ, and nothing says so: ${this.#describe(a, b, uncovered[0]!)}`,
      );
    }
    const failed = (a.running && a.flushFailed) || (b.running && b.flushFailed);
    if (this.#random.oneIn(failed ? FAILED_CRASH_ONE_IN : VIRTUAL_CRASH_ONE_IN))
      this.crash(a, b, this.#random.oneIn(2), this.#random.oneIn(2));
  }

  /** Would everything that differs be marked, had they crashed now? */
  crash(a: SimNode, b: SimNode, cutA: boolean, cutB: boolean): void {
    this.virtualCrashes += 1;
    const seed = this.#random.u32();
    let uncovered: Uint32Array;
    try {
      uncovered = SimChecks.uncoveredAfterCrash(a.machine, b.machine, seed, cutA, cutB);
    } catch (error) {
      // A crash may tear the only superblock copy that was left, say: refused by name, with a way out (R15).
      if ((a.rotten || b.rotten) && /refuses to attach/.test((error as Error).message)) return;
      throw error;
    }
    if (uncovered.length === 0) return;
    const cut = (node: SimNode, power: boolean) =>
      `${node.name} ${power ? 'loses power' : 'is killed'}`;
    throw new Violation(
      'uncovered-after-crash',
      `if ${cut(a, cutA)} and ${cut(b, cutB)} now (crash seed ${seed}), ${chunksText(uncovered)} differ, and nothing that is durable says so: ` +
        this.#describe(a, b, uncovered[0]!),
    );
  }

  #describe(a: SimNode, b: SimNode, chunk: number): string {
    const { chunkBytes, volumeBytes } = this.#sim.plan;
    const offset = chunk * chunkBytes;
    const length = Math.min(chunkBytes, volumeBytes - offset);
    const parts = [a, b].map((node) => {
      const stamps = node.machine.readStamps(offset, length);
      const durable = node.machine.readDurableStamps(offset, length);
      const shown = [...stamps].slice(0, 16).join(' ');
      return `${node.name} has ${shown} (durable ${[...durable].slice(0, 16).join(' ')})`;
    });
    return `chunk ${chunk}: ${parts.join('; ')}; ${this.describeNodes()}`;
  }

  describeNodes(): string {
    return this.#sim.nodes
      .map((node) => {
        const { status } = node;
        if (status === null) return `${node.name}: ${node.state}`;
        const { role, disk, connection, current, flags, peers, logHot } = status;
        const slots = peers.map(
          (peer) =>
            `slot ${peer.slot} '${peer.name}' flags ${peer.flags} B ${peer.bitmapGeneration} dirty ${peer.dirtyChunks}`,
        );
        return `${node.name}: ${node.state} ${role} ${disk} ${connection} C ${current} flags ${flags} hot ${logHot} [${slots.join(', ')}]`;
      })
      .join('; ');
  }

  #slow(node: SimNode): void {
    const { time } = this.#sim;
    if (!node.machine.open) return;
    const counters = node.machine.counters();
    this.bufferBytesMax = Math.max(this.bufferBytesMax, counters.bufferBytesOut);
    const bounds: Array<[string, number, number]> = [
      ['writes in the transfer log', counters.transferWrites, TRANSFER_WRITES_MAX],
      ['bytes of buffers', counters.bufferBytesOut, BUFFER_BYTES_MAX],
      ...this.#window(counters),
    ];
    for (const [what, count, most] of bounds) {
      if (count > most)
        throw new Violation(
          'bounds',
          `${count} ${what} at ${node.name}: at most ${most} are allowed`,
        );
    }
    this.#late(node, time.nowUs);
    this.#stuck(node, time.nowUs);
    this.#silent(node, counters.linkBytesUnread, time.nowUs);
  }

  /** Protocol A: what a primary may lose with it is what its policy says. */
  #window({ windowWrites, windowBytes }: SimCounters): Array<[string, number, number]> {
    const { protocol, policy } = this.#sim.plan;
    if (protocol !== 'A' || policy.window !== 'value') return [];
    return [
      ['writes that did not wait for the peer', windowWrites, policy.windowWrites],
      ['bytes that did not wait for the peer', windowBytes, policy.windowBytes],
    ];
  }

  /** A peer of which nothing comes is given up, whatever the network does; not while what has come waits here. */
  #silent(node: SimNode, unread: number, nowUs: number): void {
    const { status, linkParams, index } = node;
    const connection = status?.connection ?? 'StandAlone';
    const isUp = connection !== 'StandAlone' && connection !== 'Prepared';
    if (!isUp || linkParams === null || unread > 0) {
      this.#silences.forget(index);
      return;
    }
    const delivered = this.#sim.network.deliveredTo(index);
    const sinceUs = this.#silences.sinceUs(index, linkParams.incarnation, delivered, nowUs);
    if (nowUs - sinceUs < SILENT_TIMEOUTS * this.#sim.plan.timeouts.peerTimeout * MS) return;
    throw new Violation(
      'late',
      `${node.name} has heard nothing for ${((nowUs - sinceUs) / MS).toFixed(0)} ms, and keeps its link; ${this.describeNodes()}`,
    );
  }

  /** Every request ends, unless something that is told keeps it. */
  #late(node: SimNode, nowUs: number): void {
    const { status } = node;
    const { timeouts } = this.#sim.plan;
    const excused =
      status === null ||
      status.suspended ||
      status.connection === 'Prepared' ||
      node.machine.faults.hang;
    if (excused || node.pending.size === 0) {
      this.#excusedUs[node.index] = nowUs;
      return;
    }
    const limitMs =
      QUIET_MS + (STALL_TIMEOUTS + 3) * timeouts.peerTimeout + timeouts.recoveryTimeout;
    const since = Math.max(this.#excusedUs[node.index] ?? 0, this.#sim.disturbedUs);
    for (const [id, pending] of node.pending) {
      const waitedMs = (nowUs - Math.max(pending.submittedUs, since)) / MS;
      if (waitedMs < limitMs) continue;
      throw new Violation(
        'late',
        `request ${id} (${pending.request.op}) of ${node.name} has not completed in ${waitedMs.toFixed(0)} ms; ${this.describeNodes()}`,
      );
    }
  }

  /** A resync gets on while nothing is wrong, whatever is written meanwhile. */
  #stuck(node: SimNode, nowUs: number): void {
    const { status, linkParams, index } = node;
    if (status?.connection !== 'SyncSource' || linkParams === null) {
      this.#resyncs.forget(index);
      return;
    }
    const left = status.peers.find(({ slot }) => slot === status.linkSlot)?.dirtyChunks ?? 0;
    const standsUs = this.#resyncs.sinceUs(index, linkParams.incarnation, left, nowUs);
    const sinceUs = Math.max(standsUs, this.#sim.disturbedUs);
    const { peerTimeout } = this.#sim.plan.timeouts;
    if (this.#sim.nodes.some(({ machine }) => machine.faults.hang)) return;
    const journeys = Math.max(1, this.#sim.plan.chunkBytes / RESYNC_WINDOW_MIN);
    if (nowUs - sinceUs < (STALL_TIMEOUTS + 3) * journeys * peerTimeout * MS) return;
    throw new Violation(
      'late',
      `the resync from ${node.name} has stood at ${left} chunks for ${((nowUs - sinceUs) / MS).toFixed(0)} ms; ${this.describeNodes()}`,
    );
  }

  /** R7: a write or flush completed; without whom, it has a generation of its own, durably. */
  completed(node: SimNode, linkSlot: number): void {
    const { nodes, diskErrors } = this.#sim;
    if (node.diskless) {
      diskErrors.generations(node);
      return;
    }
    if (linkSlot >= 0 && nodes.length === 2) return;
    const mine = node.machine.durableCurrent();
    for (const other of nodes) {
      const { nodeId } = other.machine;
      const theirs = other.status?.current ?? other.machine.durableCurrent();
      if (other === node || theirs !== mine) continue;
      const slot = node.status?.peers.find((peer) => peer.nodeId === nodeId)?.slot;
      if (slot === undefined || slot === linkSlot) continue;
      throw new Violation(
        'apart',
        `R7: something completed at ${node.name} without ${other.name}, and ${other.name} has its durable generation ${mine}; ${this.describeNodes()}`,
      );
    }
  }

  /** R18: a recovered daemon let its I/O go on. */
  resumed(node: SimNode): void {
    // With the device taken away there is no I/O, and what a person forces is a person's decision.
    const { waitedFor } = node;
    node.waitedFor = null;
    if (!node.serving || node.forced) return;
    this.#stale(node, waitedFor);
    for (const other of this.#sim.nodes) {
      if (!other.primary || !node.asked(other)) continue;
      throw new Violation(
        'recovery',
        `${node.name} lets its I/O go on though ${other.name} is primary and within reach`,
      );
    }
  }

  /** Requests of before a crash reach no data that another primary has written since: their application's are gone. */
  #stale(node: SimNode, waitedFor: Lineage | null): void {
    if (waitedFor === null) return;
    let at = this.#sim.model.copy(node.index).lineage;
    while (at !== null && at !== waitedFor) {
      if (at.owner !== node.index && at.writes.length > 0) {
        throw new Violation(
          'stale',
          `${node.name} lets requests go on that are older than lineage ${at.name}, which ${this.#sim.nodes[at.owner]!.name} wrote`,
        );
      }
      at = at.parent;
    }
  }

  differingSectors(a: SimNode, b: SimNode): Array<[first: number, count: number]> {
    const { chunkBytes, volumeBytes } = this.#sim.plan;
    return [...SimChecks.differing(a.machine, b.machine)].map((chunk) => {
      const offset = chunk * chunkBytes;
      const length = Math.min(chunkBytes, volumeBytes - offset);
      return [offset / SECTOR_BYTES, length / SECTOR_BYTES];
    });
  }
}

export function chunksText(chunks: Uint32Array): string {
  const shown = [...chunks.subarray(0, 10)].join(' ');
  return `chunk${chunks.length === 1 ? '' : 's'} ${shown}${chunks.length > 10 ? ` and ${chunks.length - 10} more` : ''}`;
}
