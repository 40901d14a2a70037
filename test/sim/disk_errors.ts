/**
 * What on-io-error promises, where it is not 'pass-on': of a primary that let go of its disk, everything is at its peer, whose generation is
 * newer (R7); what is suspended waits for the operator's decision, and nothing fails before it.
 */
import type { NativeStatus } from '../../lib/binding/native.ts';
import type { SimCompletion, SimRequest } from './machine.ts';
import type { SimNode } from './node.ts';
import type { Simulation } from './simulation.ts';
import { Violation } from './violation.ts';

export class DiskErrors {
  readonly #sim: Simulation;
  readonly #suspended = new Set<SimNode>();
  /** Submitted while I/O was suspended: nobody has said that they may go on. */
  readonly #waiting = new Map<SimNode, Set<number>>();
  /** ... is being said. */
  readonly #resuming = new Set<SimNode>();
  /** Requests may fail there now: the operator said so. */
  readonly #mayFail = new Set<SimNode>();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  get #suspends(): boolean {
    return this.#sim.plan.onIoError === 'suspend';
  }

  /** A daemon starts, or is gone. */
  reset(node: SimNode): void {
    this.#suspended.delete(node);
    this.#waiting.delete(node);
    this.#mayFail.delete(node);
    this.#resuming.delete(node);
  }

  /** A turn of the core has ended; what completed in it is looked at afterwards. */
  polled(node: SimNode): void {
    const { onIoError } = this.#sim.plan;
    if (onIoError === 'pass-on') return;
    const { status } = node;
    if (status === null) return;
    if (onIoError === 'suspend') this.#look(node, status);
    else if (status.disk === 'Diskless' && !node.diskless) this.#letGo(node);
  }

  #look(node: SimNode, { suspended }: NativeStatus): void {
    if (this.#resuming.has(node)) return;
    if (suspended) this.#suspended.add(node);
    else if (this.#suspended.has(node)) {
      throw new Violation(
        'suspended',
        `${node.name} lets suspended I/O go on, and nobody said so; ${this.#sim.checks.describeNodes()}`,
      );
    }
  }

  /** Everything before is durable at the peer, where all is read and written from now on. */
  #letGo(node: SimNode): void {
    const { model, trace, nodes } = this.#sim;
    const peer = nodes.find((each) => each !== node)!;
    trace.add(node.name, `works at ${peer.name} from now on`);
    node.diskless = true;
    model.letGo(node.index, peer.index);
    this.generations(node);
  }

  /** R7: whoever asks both disks learns which one is the newer. */
  generations(node: SimNode): void {
    if (!node.diskless) return;
    const mine = node.machine.durableCurrent();
    for (const other of this.#sim.nodes) {
      if (other === node || other.machine.durableCurrent() !== mine) continue;
      throw new Violation(
        'apart',
        `R7: ${node.name} let go of its disk, and ${other.name}, whose copy it works on, has its durable generation ${mine}; ${this.#sim.checks.describeNodes()}`,
      );
    }
  }

  /**
   * What failed is done again when I/O is let go on, behind what was submitted meanwhile: of two that overlap and are out together either may
   * be the last then, as for any block device. Applications that care wait.
   */
  isOpenTo(node: SimNode, { op, offset, length }: SimRequest): boolean {
    if (!this.#suspends || op === 'read' || op === 'flush') return true;
    for (const { request } of node.pending.values()) {
      const writes = request.op !== 'read' && request.op !== 'flush';
      const isApart =
        request.offset >= offset + length || offset >= request.offset + request.length;
      if (writes && !isApart) return false;
    }
    return true;
  }

  submitted(node: SimNode, id: number): void {
    if (!this.#suspends || !this.#suspended.has(node)) return;
    const waiting = this.#waiting.get(node);
    if (waiting === undefined) this.#waiting.set(node, new Set([id]));
    else waiting.add(id);
  }

  completed(node: SimNode, { id, result }: SimCompletion): void {
    if (!this.#suspends) return;
    const waits = this.#waiting.get(node)?.has(id) === true;
    if (result === 0 && !waits) return;
    // The device was taken away: there is nobody who could be kept waiting.
    if (result !== 0 && (this.#mayFail.has(node) || !node.running || !node.serving)) return;
    throw new Violation(
      'suspended',
      result === 0
        ? `request ${id} of ${node.name} came while I/O was suspended, and has completed though nobody let it go on`
        : `request ${id} of ${node.name} fails with ${result} though an error of the disk suspends its I/O; ${this.#sim.checks.describeNodes()}`,
    );
  }

  /** I/O is let go on, by a command or by recovery; what meets a disk that has failed, fails. */
  resuming(node: SimNode): void {
    this.#suspended.delete(node);
    this.#waiting.delete(node);
    this.#mayFail.add(node);
    this.#resuming.add(node);
  }

  resumed(node: SimNode): void {
    this.#resuming.delete(node);
    if (node.status?.disk !== 'Failed') this.#mayFail.delete(node);
  }

  /** The frontend is being stopped, which fails what waits. */
  stopping(node: SimNode): void {
    this.#waiting.delete(node);
    this.#mayFail.add(node);
  }

  kept(node: SimNode): void {
    this.resumed(node);
  }
}
