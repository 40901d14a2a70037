/**
 * The person and the service manager: start what is down, restart what has failed, resolve by command what only a person may resolve; and the end
 * of every seed, when everything is healed and both copies must become one.
 */

import { VOLUME } from './config.ts';
import { NO_FAULTS } from './machine.ts';
import type { SimNode } from './node.ts';
import type { Simulation } from './simulation.ts';
import { Violation } from './violation.ts';

/** A start that failed so often has metadata that nobody can use. */
const FAILED_STARTS_MAX = 3;
/** Looks between two decisions, so that what was begun can end. */
const LOOK_STEPS = 40;
/** Looks without being in step, after which a person takes stronger means. */
const PATIENCE = 60;
const LOOKS_MAX = 1200;

export class Operator {
  readonly #sim: Simulation;
  readonly #failedStarts = new Map<SimNode, number>();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  /** A command: what it is refused with is an answer. Returns false then. */
  async command(
    node: SimNode,
    what: string,
    run: () => Promise<unknown> | undefined,
  ): Promise<boolean> {
    const { trace } = this.#sim;
    trace.add(node.name, `command: ${what}`);
    try {
      // lib/control/daemon.ts
      if (node.state === 'starting') throw new Error('the daemon is still starting');
      await run();
    } catch (error) {
      trace.add(node.name, `command ${what} refused: ${(error as Error).message}`);
      return false;
    }
    return true;
  }

  promote(node: SimNode, force: boolean): Promise<boolean> {
    node.forced ||= force;
    return this.command(node, `primary${force ? ' --force' : ''}`, () =>
      node.volume?.promote(force),
    );
  }

  demote(node: SimNode, force: boolean): Promise<boolean> {
    return this.command(node, `secondary${force ? ' --force' : ''}`, () =>
      node.volume?.demote(force),
    );
  }

  async connect(node: SimNode, discardMine: boolean): Promise<boolean> {
    const { model } = this.#sim;
    node.alone = false;
    this.#sim.disturbed();
    // Said before it is done: the link may be there before the command has ended.
    const before = model.copy(node.index).yields;
    if (discardMine) model.yields(node.index, true);
    const done = await this.command(node, `connect${discardMine ? ' --discard-my-data' : ''}`, () =>
      node.replication?.connect(VOLUME, undefined, discardMine),
    );
    if (!done) model.yields(node.index, before);
    return done;
  }

  async disconnect(node: SimNode): Promise<boolean> {
    const { model, duties } = this.#sim;
    node.alone = true;
    this.#sim.disturbed();
    const { disturbedUs } = this.#sim;
    const before = model.view(node.index);
    // What it becomes meanwhile, by another command, it becomes without its peer.
    const wasPrimary = node.primary;
    const done = await this.command(node, 'disconnect', () => node.replication?.disconnect(VOLUME));
    if (done && wasPrimary) this.#sim.check(() => duties.disconnected(node, before, disturbedUs));
    return done;
  }

  invalidate(node: SimNode): Promise<boolean> {
    return this.command(node, 'invalidate', () => {
      const peer = node.config().peers[0]!.name;
      return node.replication?.invalidate(VOLUME, peer);
    });
  }

  /** What was suspended by an error of the disk is tried again. */
  resume(node: SimNode): Promise<boolean> {
    return this.command(node, 'resume', () => node.volume?.resume());
  }

  /** What the service manager does: daemons that are down are started. */
  restart(node: SimNode): void {
    if (node.state !== 'off' && node.state !== 'failed') return;
    const failed = node.state === 'failed' ? (this.#failedStarts.get(node) ?? 0) + 1 : 0;
    this.#failedStarts.set(node, failed);
    if (failed >= FAILED_STARTS_MAX) {
      this.#failedStarts.set(node, 0);
      if (node.machine.open) node.crash('process');
      node.replaceDisk();
    }
    node.start();
  }

  /** All faults end. */
  heal(): void {
    const { nodes, network, trace } = this.#sim;
    trace.add('script', 'PEACE: all is healed');
    network.heal();
    Object.assign(network.splitting, { bytesMax: 512 * 1024, crumbOneIn: 0 });
    for (const node of nodes) {
      const { sendRingBytes, receiveRingBytes } = node.machine.faults;
      node.machine.faults = { ...NO_FAULTS, sendRingBytes, receiveRingBytes };
      node.diskSpeed = 1;
      node.mood.calm = true;
    }
  }

  /** All faults end, and the copies become one. */
  async settle(): Promise<void> {
    const { nodes } = this.#sim;
    this.heal();
    this.#sim.disturbed();
    let patience = PATIENCE;
    let leastDirty = 0;
    for (let look = 0; ; look++) {
      await this.#sim.steps(LOOK_STEPS);
      if (await this.#inStep()) return;
      if (look > LOOKS_MAX) {
        throw new Violation(
          'settle',
          `the copies do not become one: ${this.#sim.checks.describeNodes()}`,
        );
      }
      // A resync that moves needs nobody.
      const dirty = this.#dirtyChunks();
      if (dirty < leastDirty) patience = PATIENCE;
      leastDirty = dirty;
      patience -= 1;
      for (const node of nodes) await this.#mend(node, patience <= 0);
      if (patience <= 0) {
        await this.#decide();
        patience = PATIENCE;
      }
    }
  }

  #dirtyChunks(): number {
    const counts = this.#sim.nodes.map((node) => {
      const peers = node.status?.peers ?? [];
      return peers.reduce((sum, peer) => sum + peer.dirtyChunks, 0);
    });
    return counts.reduce((sum, count) => sum + count, 0);
  }

  /** Everybody runs, is linked, and nothing is left to be copied. */
  async #inStep(): Promise<boolean> {
    for (const node of this.#sim.nodes) {
      if (!node.running || node.stale) return false;
      if (!this.#sim.model.view(node.index).inStep) return false;
      if (node.status?.disk !== 'UpToDate' || node.status.suspended) return false;
    }
    return true;
  }

  /** `late`: what a node does by itself has had its time. */
  async #mend(node: SimNode, late: boolean): Promise<void> {
    this.restart(node);
    if (!node.running) return;
    const disk = node.status?.disk;
    if (node.alone) await this.connect(node, false);
    const others = this.#sim.nodes.filter((other) => other !== node);
    const { onIoError } = this.#sim.plan;
    if (node.status?.suspended && onIoError === 'suspend') await this.resume(node);
    const isLeft = onIoError === 'detach' && this.#isLeft(node);
    // A recovery that waits: the application has moved on, or a person says that it may go on.
    if (node.status?.suspended && (isLeft || others.some(({ primary }) => primary))) {
      await this.demote(node, true);
    } else if (node.status?.suspended && late) await this.promote(node, true);
    // What failed is used again by a new daemon only; and a changed config is read by one.
    if (disk === 'Failed' || disk === 'Diskless' || node.stale) {
      if (await node.stop()) return;
      await this.#sim.steps(1);
      if (late || disk === 'Failed') node.crash('process');
    }
  }

  /** It crashed after it had let go of its disk: the other copy is the one to go on with. */
  #isLeft(node: SimNode): boolean {
    const disk = node.status?.disk;
    if (disk === 'UpToDate' || disk === 'Diskless') return false;
    return this.#sim.nodes.some((other) => other !== node && other.status?.disk === 'UpToDate');
  }

  /** What a person does about copies that do not come together. */
  async #decide(): Promise<void> {
    const [first, ...others] = await this.#byRank();
    if (first === undefined || others.some((node) => !node.running)) return;
    const { trace, checks } = this.#sim;
    trace.add('script', `a person decides for ${first.name}: ${checks.describeNodes()}`);
    for (const other of others) {
      if (other.primary) await this.demote(other, true);
      const words = [...(await this.words(first)), ...(await this.words(other))];
      if (words.includes('SplitBrain')) {
        await this.connect(other, true);
        await this.connect(first, false);
        continue;
      }
      if (first.status?.disk !== 'UpToDate') await this.promote(first, true);
      else if (!(await this.invalidate(other))) await this.remake(other);
      await this.connect(first, false);
      await this.connect(other, false);
    }
  }

  /** What a node says of its links, or of the one with a peer. */
  async words(node: SimNode, peer?: SimNode): Promise<string[]> {
    const status = node.running ? await node.volume!.status() : null;
    const about = status?.peers.filter(({ name }) => peer === undefined || name === peer.name);
    return about?.map(({ connection }) => connection) ?? [];
  }

  /** The last resort: new metadata, so that everything is copied. */
  async remake(node: SimNode): Promise<void> {
    await this.end(node);
    await this.#sim.steps(1);
    if (node.state !== 'off') return;
    node.replaceDisk();
    node.start();
  }

  /** Its daemon stops, cleanly or not. */
  async end(node: SimNode): Promise<void> {
    if (await node.stop()) return;
    await this.#sim.steps(1);
    node.crash('process');
  }

  /** Whose data count, best first. */
  async #byRank(): Promise<SimNode[]> {
    const ranks = new Map<SimNode, number>();
    for (const node of this.#sim.nodes) {
      const { status } = node;
      const disks = ['Diskless', 'Failed', 'Inconsistent', 'Outdated', 'Consistent', 'UpToDate'];
      const rank = status === null ? -1 : disks.indexOf(status.disk) * 2;
      ranks.set(node, rank + (status?.role === 'primary' && status.disk !== 'Failed' ? 1 : 0));
    }
    return this.#sim.random.shuffled(this.#sim.nodes).sort((a, b) => ranks.get(b)! - ranks.get(a)!);
  }
}
