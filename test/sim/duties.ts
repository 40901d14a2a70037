/** What role changes, recovery and the orderly end of a link owe the other copy (R18). */
import type { NativeEvent } from '../../lib/binding/native.ts';
import { SLOT_PEER_OUTDATED } from '../../lib/replication/flags.ts';
import type { Lineage } from './lineage.ts';
import { NEVER } from './lineage.ts';
import type { LinkView } from './model.ts';
import { ANSWER_MS, type SimNode } from './node.ts';
import type { Simulation } from './simulation.ts';
import { Violation } from './violation.ts';

export class Duties {
  readonly #sim: Simulation;
  /** Nodes that were told that they are going to be outdated, and have said yes. */
  readonly #outdated = new Set<SimNode>();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  /** Nothing is wrong, or has gone wrong since then. */
  #isCalm(sinceUs: number, nodes: readonly SimNode[]): boolean {
    const { disturbedUs, network, plan } = this.#sim;
    if (disturbedUs !== sinceUs || !network.healthy) return false;
    if (plan.policy.selectPeers === 'function' && plan.policy.nobodyOneIn > 0) return false;
    return nodes.every(({ running, stale, machine, startedUs }) => {
      const { sendRingBytes: _send, receiveRingBytes: _receive, ...faults } = machine.faults;
      return running && !stale && startedUs <= sinceUs && Object.values(faults).every((on) => !on);
    });
  }

  // --- outdating ---

  /** A primary has told its peer, and goes on alone. */
  toldPeer(node: SimNode): void {
    const peer = this.#sim.nodeById(node.linkParams?.peerId ?? '');
    const slot = node.status?.peers.find(({ nodeId }) => nodeId === peer?.machine.nodeId);
    if (peer && slot && (slot.flags & SLOT_PEER_OUTDATED) !== 0) this.#outdated.add(peer);
  }

  /** It has, or is going to have, what its peer has. */
  isCurrent(node: SimNode): void {
    this.#outdated.delete(node);
  }

  /** A command to disconnect has ended. */
  disconnected(node: SimNode, before: LinkView, sinceUs: number): void {
    const peer = this.#sim.nodes[before.peer];
    if (!node.primary || !before.inStep || peer === undefined) return;
    if (!this.#isCalm(sinceUs, [node, peer]) || this.#outdated.has(peer)) return;
    throw new Violation(
      'outdated',
      `${node.name}, which is primary, has disconnected, and ${peer.name} was not told that it is outdated; ${this.#describe()}`,
    );
  }

  /** Of two copies with equal generations the last primary is known, whatever has crashed, so that nobody has to be asked. */
  refused(node: SimNode, why: string): void {
    if (!why.includes('none of the two is known as the last primary')) return;
    // Of three, the last primary may be the one that is away.
    if (this.#sim.nodes.length > 2) return;
    throw new Violation('last-primary', `${node.name}: ${why}; ${this.#describe()}`);
  }

  // --- links ---

  /** R16: a link is prepared; `writesOut`: what was under way at the disk of a secondary then, of the link before. */
  prepared(node: SimNode, writesOut: number): void {
    if (writesOut === 0) return;
    throw new Violation(
      'old-link',
      `${node.name} prepares a link while ${writesOut} writes of the last one are under way; ${this.#describe()}`,
    );
  }

  // --- marks ---

  /** A link is prepared over which nothing is going to be copied. */
  nothingToDo(node: SimNode, peerId: string): void {
    const dirty = node.status?.peers.find(({ nodeId }) => nodeId === peerId)?.dirtyChunks ?? 0;
    // Of two of which one works at the other's disk, that one marks what the other's lacks; it may have died during the handshake.
    if (dirty === 0 || this.#sim.nodes.some(({ diskless }) => diskless)) return;
    if (this.#sim.nodeById(peerId)?.running !== true) return;
    throw new Violation(
      'in-step',
      `${node.name} begins a link with nothing to do, and has ${dirty} chunks marked; ${this.#describe()}`,
    );
  }

  /** In this order. The end of a resync leaves no mark; what failed afterwards may have made one. */
  told(node: SimNode, events: readonly NativeEvent[]): void {
    const ended = events.findLastIndex(({ kind }) => kind === 'syncFinished');
    if (ended < 0 || node.linkParams?.side !== 'source') return;
    if (events.slice(ended).some(({ kind }) => kind === 'ioError')) return;
    const { status } = node;
    const dirty = status?.peers.find(({ slot }) => slot === status.linkSlot)?.dirtyChunks ?? 0;
    if (status?.connection !== 'Connected' || dirty === 0) return;
    throw new Violation(
      'in-step',
      `${node.name} has ended a resync, and ${dirty} chunks are marked; ${this.#describe()}`,
    );
  }

  // --- roles ---

  promoted(node: SimNode, force: boolean): void {
    const { model, nodes } = this.#sim;
    const link = model.view(node.index);
    const peer = nodes[link.peer];
    if (link.active && peer?.primary && model.view(peer.index).id === link.id) {
      throw new Violation(
        'roles',
        `${node.name} became primary, linked with ${peer.name}, which is primary`,
      );
    }
    if (!force && this.#outdated.has(node)) {
      throw new Violation(
        'outdated',
        `${node.name} became primary without force, and knows that it is outdated`,
      );
    }
    this.#outdated.delete(node);
  }

  demoted(node: SimNode, before: LinkView, sinceUs: number): void {
    const peer = this.#sim.nodes[before.peer];
    if (!before.inStep || peer === undefined || node.alone || peer.alone) return;
    if (!this.#isCalm(sinceUs, [node, peer])) return;
    const now = this.#sim.model.view(node.index);
    if (now.id === before.id) return;
    throw new Violation(
      'demotion',
      `${node.name} was demoted in peace, and has lost its link with ${peer.name}; ${this.#describe()}`,
    );
  }

  /** A request has succeeded. */
  completed(node: SimNode): void {
    if (!node.recovering) return;
    throw new Violation(
      'recovery',
      `a request of ${node.name} completed before its peers were asked`,
    );
  }

  /** A recovered daemon let its I/O go on. */
  resumed(node: SimNode): void {
    const { nodes, plan, model } = this.#sim;
    if (!node.serving || node.forced || plan.timeouts.recoveryTimeout < ANSWER_MS) return;
    for (const other of nodes) {
      if (!other.running || !node.asked(other)) continue;
      const { lineage, whole, yields } = model.copy(other.index);
      if (!whole || yields || lineage === null || other.status?.disk !== 'UpToDate') continue;
      if (!isApart(lineage, model.copy(node.index).lineage)) continue;
      // Unrelated copies are behind nobody.
      if (!isBound(node, other) && !isBound(other, node)) continue;
      throw new Violation(
        'recovery',
        `${node.name} lets its I/O go on though ${other.name}, within reach, was written without it in ${lineage.name}; ${this.#describe()}`,
      );
    }
  }

  #describe(): string {
    return this.#sim.checks.describeNodes();
  }
}

/** The node has a slot for the other: they were linked once. */
function isBound(node: SimNode, other: SimNode): boolean {
  return node.status?.peers.some(({ nodeId }) => nodeId === other.machine.nodeId) === true;
}

/** Something that is no part of `mine` was written in `theirs`. */
function isApart(theirs: Lineage, mine: Lineage | null): boolean {
  const ancestors = new Set<Lineage>();
  for (let at = mine; at !== null; at = at.parent) ancestors.add(at);
  for (let at: Lineage | null = theirs; at !== null && !ancestors.has(at); at = at.parent) {
    if (at.writes.some(({ completed, failed }) => completed !== NEVER && !failed)) return true;
  }
  return false;
}
