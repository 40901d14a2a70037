/**
 * One seed: the nodes, the network between them, time, the applications, and the scheduler that makes one small thing happen after the
 * other. What is wrong first ends it.
 */
import type { NativeLinkParams, NativeStatus } from '../../lib/binding/native.ts';
import { Checks } from './checks.ts';
import { DiskErrors } from './disk_errors.ts';
import { Duties } from './duties.ts';
import type { SimCompletion, SimRequest } from './machine.ts';
import { type LinkView, Model } from './model.ts';
import { SimNetwork } from './network.ts';
import { SimNode } from './node.ts';
import { makePlan, type Plan } from './plan.ts';
import { Random } from './random.ts';
import { SimTime } from './time.ts';
import { Trace } from './trace.ts';
import { Violation } from './violation.ts';
import { Workload } from './workload.ts';

/** A seed that takes more than that has hung. */
const STEPS_MAX = 150_000;
/** Turns of the loops after one step; more is a livelock. */
const ROUNDS_MAX = 2_000;
/** The script looks every so many steps whether what it waits for has come. */
const LOOK_STEPS = 16;
const NO_LINK: LinkView = { id: 0, peer: -1, inStep: false, connected: false, active: false };

interface Waiter {
  ready: () => boolean;
  resolve: () => void;
}

export interface SimulationOptions {
  printTrace: boolean;
}

export class Simulation {
  readonly plan: Plan;
  readonly random: Random;
  readonly trace: Trace;
  readonly time = new SimTime();
  readonly nodes: SimNode[] = [];
  readonly network: SimNetwork;
  readonly model: Model;
  readonly workload: Workload;
  readonly checks: Checks;
  readonly duties = new Duties(this);
  readonly diskErrors = new DiskErrors(this);
  step = 0;
  /** Applications send requests. */
  working = false;
  /** Virtual time of the last fault, repair or command that changes who reaches whom. */
  disturbedUs = 0;
  failure: Violation | null = null;
  readonly #nextRequestUs: number[] = [];
  readonly #touched: boolean[] = [];
  readonly #undelivered: boolean[] = [];
  #waiters: Waiter[] = [];
  #agenda: Array<{ step: number; run: () => void }> = [];
  #scriptOver = false;

  constructor(seed: number, options: SimulationOptions) {
    this.random = new Random(seed);
    this.plan = makePlan(seed, this.random.fork());
    this.trace = new Trace(options.printTrace);
    this.trace.nowUs = () => this.time.nowUs;
    this.trace.step = () => this.step;
    this.network = new SimNetwork(this.nodes, this.random.fork(), this.trace, this.plan.splitting);
    const names = Array.from({ length: this.plan.nodes }, (_, index) => nodeLabel(index));
    this.model = new Model({
      protocol: this.plan.protocol,
      names,
      stamps: (node) => this.nodes[node]!.machine.readStamps(0, this.plan.volumeBytes),
      durableStamps: (node, offset, length) =>
        this.nodes[node]!.machine.readDurableStamps(offset, length),
      flushFailed: (node) => this.nodes[node]!.flushFailed,
      worksAt: (node) => (this.nodes[node]!.diskless ? 1 - node : node),
      diskFailed: (node) => this.nodes[node]!.diskFailed,
      differing: (a, b) => this.checks.differingSectors(this.nodes[a]!, this.nodes[b]!),
      link: (node) => this.#linkView(this.nodes[node]!),
      primary: (node) => this.nodes[node]!.primary,
      open: (node) => this.nodes[node]!.machine.open,
      pending: (node) => this.nodes[node]!.pending.values(),
    });
    for (let index = 0; index < this.plan.nodes; index++) {
      this.nodes.push(new SimNode(this, this.plan, index, this.random.fork()));
      this.#nextRequestUs.push(0);
      this.#touched.push(false);
      this.#undelivered.push(false);
    }
    this.workload = new Workload(this.plan, this.random.fork());
    this.checks = new Checks(this, this.random.fork());
    this.trace.add('plan', JSON.stringify(this.plan));
  }

  /** Runs the script, and everything else until it has ended. @throws Violation */
  async run(script: (sim: Simulation) => Promise<void>): Promise<void> {
    script(this).then(
      () => {
        this.#scriptOver = true;
      },
      (error: Error) => {
        this.failure ??=
          error instanceof Violation
            ? error
            : new Violation('script', error.stack ?? error.message);
      },
    );
    await drain();
    while (!this.#scriptOver) {
      this.#throwFailure();
      if (this.step >= STEPS_MAX) {
        throw new Violation('end', `the seed is not over after ${STEPS_MAX} steps`);
      }
      await this.#turn();
    }
    this.#throwFailure();
  }

  /** Nothing of it runs any more. */
  end(): void {
    for (const node of this.nodes) {
      node.abandon();
      node.machine.dispose();
    }
  }

  #throwFailure(): void {
    if (this.failure !== null) throw this.failure;
  }

  fail(check: string, message: string): void {
    this.failure ??= new Violation(check, message);
  }

  /** Runs a check whose exception must not end up in the product. */
  check(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.failure ??=
        error instanceof Violation ? error : new Violation('exception', (error as Error).stack!);
    }
  }

  disturbed(): void {
    this.disturbedUs = this.time.nowUs;
  }

  nodeById(nodeId: string): SimNode | undefined {
    return this.nodes.find((node) => node.machine.nodeId === nodeId);
  }

  // --- for scripts ---

  /** Resolves between two steps, when nothing else is under way in JavaScript. */
  until(ready: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      this.#waiters.push({ ready, resolve });
    });
  }

  /** So many steps later. */
  steps(count: number): Promise<void> {
    const end = this.step + count;
    return this.until(() => this.step >= end);
  }

  /** Between two steps, so many from now on. */
  later(steps: number, run: () => void): void {
    this.#agenda.push({ step: this.step + steps, run });
  }

  // --- requests ---

  submit(node: SimNode, request: SimRequest): void {
    this.check(() => {
      const pending = this.model.submitted(node.index, request, this.time.nowUs);
      const id = node.machine.submit(request);
      node.pending.set(id, pending);
      this.diskErrors.submitted(node, id);
      this.#touched[node.index] = true;
      const { op, offset, length, stamp, fua } = request;
      const what = stamp === undefined ? op : `${op} #${stamp}`;
      this.trace.add(node.name, `request ${id}: ${what}${fua ? ' FUA' : ''} ${offset}+${length}`);
    });
  }

  #complete(node: SimNode, completion: SimCompletion): void {
    const pending = node.pending.get(completion.id);
    this.trace.add(node.name, `request ${completion.id} completed: ${completion.result}`);
    if (pending === undefined) {
      this.fail('requests', `request ${completion.id} of ${node.name} completed, and is not out`);
      return;
    }
    node.pending.delete(completion.id);
    this.check(() => this.model.completed(node.index, pending, completion));
    const { result, linkSlot } = completion;
    if (result === 0) this.check(() => this.duties.completed(node));
    if (!pending.doomed) this.check(() => this.diskErrors.completed(node, completion));
    if (result === 0 && pending.request.op !== 'read') {
      this.check(() => this.checks.completed(node, linkSlot));
    }
  }

  // --- what the observers tell ---

  #linkView(node: SimNode): LinkView {
    const params = node.linkParams;
    const { status } = node;
    if (params === null || status === null) return NO_LINK;
    if (status.connection === 'StandAlone' || status.connection === 'Prepared') return NO_LINK;
    const peer = this.nodeById(params.peerId);
    if (peer === undefined) return NO_LINK;
    const dirty = status.peers.find((each) => each.slot === status.linkSlot)?.dirtyChunks ?? 1;
    const connected = status.connection === 'Connected';
    const inStep = connected && dirty === 0 && !this.#isLettingGo(status);
    return { id: params.incarnation, peer: peer.index, inStep, connected, active: true };
  }

  /** A primary lets go of its disk, or has: its peer keeps marks for it. */
  #isLettingGo({ disk, peerDisk }: NativeStatus): boolean {
    if (this.plan.onIoError !== 'detach') return false;
    return [disk, peerDisk].some((each) => each === 'Diskless' || each === 'Failed');
  }

  linkStarting(node: SimNode, params: NativeLinkParams): void {
    const peer = this.nodeById(params.peerId);
    if (peer === undefined) return;
    const first = this.model.linkBegins(params.incarnation);
    if (params.side === 'none' && first && this.#keeps(peer, params.incarnation)) {
      this.model.inStep(node.index, peer.index);
    }
    if (params.peerRole === 'primary' && node.primary) {
      this.fail('roles', `${node.name} links as primary with ${peer.name}, which is primary`);
    }
  }

  /** False: it has given the link up, and the other side hears of that behind what lets it start. Nothing goes over such a link. */
  #keeps({ linkParams, status }: SimNode, incarnation: number): boolean {
    return linkParams?.incarnation === incarnation && status?.connection !== 'StandAlone';
  }

  resumed(node: SimNode): void {
    this.checks.resumed(node);
    this.duties.resumed(node);
  }

  // --- the scheduler ---

  async #turn(): Promise<void> {
    this.step += 1;
    if (this.#script()) await this.#settle(true);
    else if (this.#act()) await this.#settle(true);
    else await this.#settle(false);
    this.check(() => this.checks.step());
  }

  /** Something of the script or the agenda is due: one at a time. */
  #script(): boolean {
    const due = this.#agenda.findIndex(({ step }) => step <= this.step);
    if (due >= 0) {
      const [first] = this.#agenda.splice(due, 1);
      first!.run();
      return true;
    }
    if (this.step % LOOK_STEPS !== 0) return false;
    const ready = this.#waiters.findIndex((waiter) => waiter.ready());
    if (ready < 0) return false;
    const [waiter] = this.#waiters.splice(ready, 1);
    waiter!.resolve();
    return true;
  }

  /** Makes one thing happen, of what can; true: JavaScript may have run. */
  #act(): boolean {
    const { random, plan, time, nodes } = this;
    const { weights } = plan;
    time.nowUs += random.between(1, 2 * plan.stepUs);
    const timerUs = time.nextUs;
    let total = 0;
    const networkShare = this.network.busy ? weights.network : 0;
    const timerShare = timerUs <= time.nowUs ? weights.timer : 0;
    total = networkShare + timerShare;
    for (const node of nodes) total += this.#shareOf(node);
    if (total === 0) return this.#pass();
    let left = random.next() * total;
    left -= networkShare;
    if (left < 0) {
      const node = this.network.step();
      if (node >= 0) this.#touched[node] = true;
      return true;
    }
    left -= timerShare;
    if (left < 0) {
      time.runDue();
      for (const node of nodes) this.#touched[node.index] = true;
      return true;
    }
    for (const node of nodes) {
      left -= this.#shareOf(node);
      if (left < 0) return this.#actAt(node, -left);
    }
    return false;
  }

  #shareOf(node: SimNode): number {
    return this.#ioShare(node) + this.#requestShare(node) + this.#deliverShare(node);
  }

  #ioShare({ machine, diskSpeed }: SimNode): number {
    if (machine.faults.hang) return 0;
    return Math.min(machine.ioCount, 4) * 0.5 * this.plan.weights.io * diskSpeed;
  }

  #requestShare(node: SimNode): number {
    if (!this.working || !node.serving) return 0;
    const { mood } = this.workload;
    const due = this.#nextRequestUs[node.index]! <= this.time.nowUs;
    return due && node.pending.size < mood.depth ? this.plan.weights.request : 0;
  }

  #deliverShare({ index }: SimNode): number {
    return this.#undelivered[index] ? this.plan.weights.deliver : 0;
  }

  /** `at`: anywhere in the node's share. */
  #actAt(node: SimNode, at: number): boolean {
    const { index, machine } = node;
    const io = this.#ioShare(node);
    if (at <= io) {
      const text = machine.completeIo(this.random.next());
      this.trace.add(node.name, `io ${text}`);
      this.#touched[index] = true;
      return false;
    }
    if (at <= io + this.#requestShare(node)) {
      const { thinkUs } = this.workload.mood;
      this.#nextRequestUs[index] = this.time.nowUs + (thinkUs && this.random.below(2 * thinkUs));
      // A device that is served only to be taken away fails what comes: there is nothing to be learned from it.
      const next = node.primary ? this.workload.next() : null;
      if (next !== null && this.diskErrors.isOpenTo(node, next)) this.submit(node, next);
      return false;
    }
    this.#deliver(index);
    return true;
  }

  /** Nothing can happen now: time goes on to when something can. */
  #pass(): boolean {
    let nextUs = this.time.nextUs;
    for (const node of this.nodes) {
      if (node.machine.open) nextUs = Math.min(nextUs, node.machine.nextDeadlineUs);
      const wants = this.working && node.serving && node.pending.size < this.workload.mood.depth;
      if (wants) nextUs = Math.min(nextUs, this.#nextRequestUs[node.index]!);
      this.#touched[node.index] = true;
    }
    if (nextUs === Number.POSITIVE_INFINITY) {
      // Only the script can go on.
      this.step += LOOK_STEPS - 1 - (this.step % LOOK_STEPS);
      return false;
    }
    this.time.nowUs = Math.max(this.time.nowUs, nextUs);
    return false;
  }

  /** Until nothing more happens by itself: JavaScript, then the nodes' loops, and again. */
  async #settle(ran: boolean): Promise<void> {
    let runs = ran;
    for (let round = 0; ; round++) {
      if (runs) {
        await drain();
        for (let index = 0; index < this.nodes.length; index++) this.#touched[index] = true;
      }
      this.#poll();
      runs = false;
      for (let index = 0; index < this.nodes.length; index++) {
        if (!this.#undelivered[index] || this.random.oneIn(this.plan.lateJsOneIn)) continue;
        runs = this.#deliver(index) || runs;
      }
      if (!runs) return;
      if (round > ROUNDS_MAX) throw new Violation('livelock', 'a step has no end');
    }
  }

  #poll(): void {
    for (const node of this.nodes) {
      const { machine, index } = node;
      if (!machine.open) {
        // The end of a close() is told after the volume has ended.
        if (this.#touched[index]) this.#undelivered[index] = true;
        this.#touched[index] = false;
        continue;
      }
      if (!this.#touched[index] && machine.nextDeadlineUs > this.time.nowUs) continue;
      this.#touched[index] = false;
      machine.poll(this.time.nowUs);
      this.check(() => this.diskErrors.polled(node));
      this.#undelivered[index] = true;
      for (const completion of machine.completions()) this.#complete(node, completion);
    }
  }

  #deliver(index: number): boolean {
    const { machine } = this.nodes[index]!;
    const told = machine.deliver();
    // There may be more behind it.
    this.#undelivered[index] = told;
    return told;
  }
}

export function nodeLabel(index: number): string {
  return String.fromCharCode(97 + index).repeat(3);
}

/** Runs all microtasks. */
function drain(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
