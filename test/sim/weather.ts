/** Faults and commands, as chance and the theme have them. Each undoes itself after a while; the operator starts again what is down. */

import { EPISODES, Episodes } from './episodes.ts';
import { type DiskFaults, NO_FAULTS } from './machine.ts';
import type { SimNode } from './node.ts';
import type { Operator } from './operator.ts';
import type { Simulation } from './simulation.ts';
import { makeMood } from './workload.ts';

export const EVENTS = [
  'reset',
  'fin',
  'lost-tail',
  'stall',
  'partition',
  'lost-dials',
  'stranger',
  'kill',
  'power-cut',
  'kill-both',
  'power-cut-both',
  'hang',
  'slow-disk',
  'data-errors',
  'read-errors',
  'flush-errors',
  'meta-errors',
  'no-buffers',
  'clean-restart',
  'failover',
  'promote',
  'force-promote',
  'demote',
  'disconnect',
  'discard-mine',
  'invalidate',
  'replace-disk',
  'rot',
  'mood',
  ...EPISODES,
] as const;
export type WeatherEvent = (typeof EVENTS)[number];
export type Weights = Partial<Record<WeatherEvent, number>>;

export class Weather {
  readonly #sim: Simulation;
  readonly operator: Operator;
  readonly #episodes: Episodes;
  over = false;

  constructor(sim: Simulation, operator: Operator) {
    this.#sim = sim;
    this.operator = operator;
    this.#episodes = new Episodes(sim, this);
  }

  /** No more of it. What is under way undoes itself. */
  end(): void {
    this.over = true;
  }

  /** One event after the other, about every so many steps. */
  async blow(weights: Weights, everySteps: number): Promise<void> {
    const { random } = this.#sim;
    while (!this.over) {
      await this.#sim.steps(random.between(1, 2 * everySteps));
      if (!this.over) this.happen(random.weighted(weights));
    }
  }

  /** Daemons that are down are started again after a while. */
  async keepUp(): Promise<void> {
    const { random, nodes } = this.#sim;
    while (!this.over) {
      await this.#sim.steps(random.between(20, 300));
      if (this.over) return;
      const node = random.pick(nodes);
      this.operator.restart(node);
      if (this.#sim.plan.onIoError !== 'pass-on' && this.#mendDisk(node)) continue;
      // A node that is to be alone is so for a while only; a failed disk is noticed by somebody.
      if (node.running && node.alone && random.oneIn(2)) void this.operator.connect(node, false);
      else if (node.running && (node.stale || node.status?.disk === 'Failed')) void node.stop();
      else if (!nodes.some((each) => each.primary) && random.oneIn(2))
        void this.operator.promote(node, false);
    }
  }

  /** What a person does about a disk, or I/O that waits because of one; false: nothing. */
  #mendDisk(node: SimNode): boolean {
    const { random, plan } = this.#sim;
    const { status } = node;
    if (!node.running || status === null) return false;
    if (plan.onIoError === 'suspend' && status.suspended) {
      if (random.oneIn(2)) void this.operator.resume(node);
    } else if (status.disk === 'Diskless') {
      const way = random.pick(['wait', 'wait', 'start again', 'replace', 'secondary'] as const);
      if (way === 'start again') void node.stop();
      else if (way === 'replace') this.#replace(node);
      else if (way === 'secondary') void this.operator.demote(node, random.oneIn(2));
    } else return false;
    return true;
  }

  happen(event: WeatherEvent): void {
    const { random, nodes, network, trace } = this.#sim;
    const node = random.pick(nodes);
    const primary = nodes.find((each) => each.primary) ?? node;
    trace.add('weather', `${event} (${node.name})`);
    switch (event) {
      case 'reset':
        network.break('rst');
        break;
      case 'fin':
        network.break('fin');
        break;
      case 'lost-tail':
        network.break('tail');
        break;
      case 'stall':
        network.stall();
        this.#undo(1200, () => network.heal());
        break;
      case 'partition':
        for (const other of nodes) if (other !== node) network.cut(node.index, other.index);
        this.#undo(1500, () => network.heal());
        break;
      case 'lost-dials':
        network.dialLostOneIn = 2;
        network.listenFailsOneIn = 2;
        this.#undo(800, () => network.heal());
        break;
      case 'stranger':
        network.stranger(node, random.bytes(random.pick([0, 10, 100, 5000])));
        return;
      case 'kill':
      case 'power-cut':
        this.crash(random.oneIn(2) ? primary : node, event === 'kill' ? 'process' : 'power');
        break;
      case 'kill-both':
      case 'power-cut-both':
        for (const each of nodes) this.crash(each, event === 'kill-both' ? 'process' : 'power');
        break;
      case 'hang':
        this.faults(node, { hang: true }, 600);
        break;
      case 'slow-disk':
        node.diskSpeed = random.pick([0.2, 0.02]);
        this.#undo(1500, () => {
          node.diskSpeed = 1;
        });
        break;
      case 'data-errors':
        this.faults(node, { dataWriteErrorOneIn: random.pick([3, 30]) }, 300);
        break;
      case 'read-errors':
        this.faults(node, { dataReadErrorOneIn: random.pick([3, 30]) }, 300);
        break;
      case 'flush-errors':
        this.faults(node, { dataFlushErrorOneIn: 3, metaFlushErrorOneIn: 10 }, 200);
        break;
      case 'meta-errors':
        this.faults(node, { metaWriteErrorOneIn: 5, metaReadErrorOneIn: 5 }, 200);
        break;
      case 'no-buffers':
        this.faults(node, { noBufferOneIn: random.pick([2, 10]) }, 400);
        break;
      case 'clean-restart':
        void node.stop();
        break;
      case 'failover':
        void this.#failover(primary);
        break;
      case 'promote':
        void this.operator.promote(node, false);
        break;
      case 'force-promote':
        void this.operator.promote(node, true);
        break;
      case 'demote':
        void this.operator.demote(primary, random.oneIn(4));
        break;
      case 'disconnect':
        void this.operator.disconnect(node);
        break;
      case 'discard-mine':
        void this.operator.connect(node, true);
        break;
      case 'invalidate':
        void this.operator.invalidate(node);
        break;
      case 'replace-disk':
        this.#replace(node);
        break;
      case 'rot':
        this.#rot(node);
        break;
      case 'mood':
        this.#sim.workload.mood = makeMood(this.#sim.plan, random);
        return;
      default:
        void this.#episodes.play(event);
    }
    this.#sim.disturbed();
  }

  #undo(stepsMax: number, run: () => void): void {
    this.#sim.later(this.#sim.random.between(1, stepsMax), () => {
      run();
      this.#sim.disturbed();
    });
  }

  faults(node: SimNode, faults: Partial<DiskFaults>, stepsMax: number): void {
    const { machine } = node;
    machine.faults = { ...machine.faults, ...faults };
    this.#undo(stepsMax, () => {
      const { sendRingBytes, receiveRingBytes } = machine.faults;
      machine.faults = { ...NO_FAULTS, sendRingBytes, receiveRingBytes };
    });
  }

  crash(node: SimNode, kind: 'process' | 'power'): void {
    const { checks, nodes } = this.#sim;
    if (node.state === 'off' && !node.up) return;
    for (const other of nodes) {
      if (other !== node) this.#sim.check(() => checks.crash(node, other, kind === 'power', false));
    }
    node.crash(kind);
  }

  /** The application moves, in an orderly way or not. */
  async #failover(from: SimNode): Promise<void> {
    const { random, nodes } = this.#sim;
    const to = random.pick(nodes.filter((node) => node !== from));
    if (random.oneIn(3)) {
      await this.#sim.steps(1);
      this.crash(from, random.oneIn(2) ? 'process' : 'power');
      await this.#sim.steps(random.between(1, 200));
    } else await this.operator.demote(from, false);
    await this.operator.promote(to, false);
  }

  #replace(node: SimNode): void {
    // The other copy must be worth something, or all is lost by decision.
    const other = this.#sim.nodes.find((each) => each !== node)!;
    if (other.status?.disk !== 'UpToDate') return;
    this.crash(node, 'power');
    node.replaceDisk();
  }

  #rot(node: SimNode): void {
    const { random, trace } = this.#sim;
    // One block in a life of the daemon, which mends it: nothing holds when both copies of the superblock rot.
    if (!node.running) return;
    this.crash(node, 'process');
    const what = random.pick(['map', 'log', 'superblock'] as const);
    if (what === 'superblock') node.rotten = true;
    trace.add(node.name, `rot: ${node.machine.rot(what)}`);
  }
}
