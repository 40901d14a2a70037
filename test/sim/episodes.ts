/** Sequences of faults and commands that chance alone would seldom put together. */
import type { SimNode } from './node.ts';
import type { Simulation } from './simulation.ts';
import type { Weather } from './weather.ts';

export const EPISODES = [
  'promote-both',
  'changed-mind',
  'usurped',
  'yielded',
  'apart-with-bad-metadata',
  'stepped-down',
  'stepped-apart',
  'broken-at-slow-disk',
  'fallen',
  'lost-disk',
] as const;
export type EpisodeName = (typeof EPISODES)[number];

export class Episodes {
  readonly #sim: Simulation;
  readonly #weather: Weather;

  constructor(sim: Simulation, weather: Weather) {
    this.#sim = sim;
    this.#weather = weather;
  }

  async play(name: EpisodeName): Promise<void> {
    const [one, other] = this.#sim.random.shuffled(this.#sim.nodes) as [SimNode, SimNode];
    switch (name) {
      case 'promote-both':
        return await this.#promoteBoth(one, other);
      case 'changed-mind':
        return await this.#changedMind(one, other);
      case 'usurped':
        return await this.#usurped(one, other);
      case 'yielded':
        return await this.#yielded(one, other);
      case 'apart-with-bad-metadata':
        return await this.#apartWithBadMetadata(one, other);
      case 'stepped-down':
        return await this.#steppedDown(one, other);
      case 'stepped-apart':
        return await this.#steppedApart(one, other);
      case 'broken-at-slow-disk':
        return await this.#brokenAtSlowDisk(one, other);
      case 'fallen':
        return await this.#fallen(one, other);
      case 'lost-disk':
        return await this.#lostDisk(one, other);
    }
  }

  /** Between two steps of a sequence; false: the weather is over. */
  async #pause(stepsMax: number): Promise<boolean> {
    await this.#sim.steps(this.#sim.random.between(1, stepsMax));
    return !this.#weather.over;
  }

  /** Waits for something up to a step, or the end of the weather; false: it has not come, or is too late. */
  async #until(ready: () => boolean, step: number): Promise<boolean> {
    await this.#sim.until(() => ready() || this.#weather.over || this.#sim.step > step);
    return ready() && !this.#weather.over;
  }

  /** Waits for writes of a primary that its peer has not acknowledged; false: there are none, or it is too late. */
  #writesUnderWay(primary: SimNode): Promise<boolean> {
    const { machine } = primary;
    const areThere = () => machine.open && machine.counters().transferWrites > 0;
    return this.#until(areThere, this.#sim.step + 300);
  }

  /** A command before it may have outlasted the weather: peace stays peace. */
  #cut(one: SimNode, other: SimNode): void {
    if (this.#weather.over) return;
    this.#sim.network.cut(one.index, other.index);
    this.#sim.disturbed();
  }

  #heal(): void {
    this.#sim.network.heal();
    this.#sim.disturbed();
  }

  /** Two that are linked and secondary are promoted at the same moment. */
  async #promoteBoth(one: SimNode, other: SimNode): Promise<void> {
    const { operator } = this.#weather;
    for (const node of [one, other]) if (node.primary) await operator.demote(node, false);
    if (!(await this.#pause(100))) return;
    await Promise.all([operator.promote(one, false), operator.promote(other, false)]);
  }

  /** In a split brain one side is told to yield; before they meet it is promoted again, and written. */
  async #changedMind(one: SimNode, other: SimNode): Promise<void> {
    const { operator } = this.#weather;
    this.#cut(one, other);
    await Promise.all([operator.promote(one, false), operator.promote(other, false)]);
    if (await this.#pause(300)) await operator.demote(other, false);
    if (!this.#weather.over) await operator.connect(other, true);
    if (await this.#pause(50)) await operator.promote(other, false);
    if (await this.#pause(300)) await operator.demote(other, false);
    this.#heal();
  }

  /** A primary is killed; its peer is promoted in its place, and written; then the killed one is started again. */
  async #usurped(one: SimNode, other: SimNode): Promise<void> {
    const { operator } = this.#weather;
    const { random } = this.#sim;
    if (other.primary) await operator.demote(other, false);
    if (!one.primary) await operator.promote(one, false);
    const split = random.oneIn(3);
    if (split) this.#cut(one, other);
    if (split && (await this.#pause(200))) await operator.promote(other, false);
    // In step, so that the one that is killed has nothing of its own.
    const inStep = () => this.#sim.model.view(one.index).inStep;
    await this.#until(() => split || inStep(), this.#sim.step + 500);
    if (!(await this.#pause(200))) return this.#heal();
    this.#weather.crash(one, 'process');
    this.#sim.disturbed();
    if (!split) await operator.promote(other, false);
    if ((await this.#pause(300)) && random.oneIn(2)) await operator.demote(other, true);
    this.#heal();
    await this.#pause(4);
    operator.restart(one);
  }

  /**
   * Both are written apart, one much and the other little; the first yields. What is marked then only the target knows, until the source has
   * written its map; and that one crashes in the middle of the resync.
   */
  async #yielded(one: SimNode, other: SimNode): Promise<void> {
    const { operator } = this.#weather;
    const { random } = this.#sim;
    this.#cut(one, other);
    if (one.primary) await operator.demote(one, false);
    if (!other.primary) await operator.promote(other, false);
    if (!(await this.#pause(400))) return this.#heal();
    await operator.demote(other, false);
    await operator.promote(one, false);
    if (!(await this.#pause(100))) return this.#heal();
    await operator.connect(other, true);
    await operator.connect(one, false);
    this.#heal();
    const isTarget = () => other.status?.connection === 'SyncTarget';
    await this.#until(isTarget, this.#sim.step + 1000);
    if (!(await this.#pause(200))) return;
    this.#weather.crash(one, random.oneIn(2) ? 'process' : 'power');
    this.#sim.disturbed();
    await this.#pause(50);
    operator.restart(one);
  }

  /** The link breaks while the metadata of the primary cannot be written. */
  async #apartWithBadMetadata(one: SimNode, other: SimNode): Promise<void> {
    const primary = [one, other].find((node) => node.primary) ?? one;
    this.#weather.faults(primary, { metaWriteErrorOneIn: 2 }, 100);
    this.#sim.network.break('rst');
    this.#sim.disturbed();
  }

  /**
   * One that was written apart steps down before they meet, so that two secondaries resync, for as long as the target needs to write down what
   * is marked; it crashes when the resync has just ended, and its disk does not say so yet. Where the application moved while they were apart the
   * target was primary last of what both had, and only the end of this resync says whose content it has now.
   */
  async #steppedDown(one: SimNode, other: SimNode): Promise<void> {
    const { operator } = this.#weather;
    const { random } = this.#sim;
    const pair = await this.#withPrimary(one, other, other);
    if (pair === null) return;
    const [last, next] = pair;
    const moves = random.oneIn(2);
    if (moves && !(await this.#stepDown(last))) return;
    this.#cut(one, other);
    const [from, to] = moves ? [next, last] : [last, next];
    if (moves) await operator.promote(from, false);
    if (!(await this.#pause(200))) return this.#heal();
    const done = await this.#stepDown(from);
    this.#heal();
    if (!done) return;
    const end = this.#sim.step + 1500;
    const comes = (connection: string) =>
      this.#until(() => to.status?.connection === connection, end);
    if (!(await comes('SyncTarget'))) return;
    const { time, plan } = this.#sim;
    const swept = time.nowUs + 2000 * plan.policy.flushIntervalMs;
    this.#weather.faults(from, { hang: true }, 1500);
    await this.#until(() => time.nowUs > swept, end);
    this.#weather.faults(from, { hang: false }, 1);
    this.#sim.disturbed();
    if (!(await comes('Connected'))) return;
    this.#weather.crash(to, random.oneIn(2) ? 'process' : 'power');
    this.#sim.disturbed();
    await this.#pause(50);
    operator.restart(to);
  }

  /**
   * The link breaks with writes on their way, nothing is written after that, and the primary steps down: the other, if it is promoted then, has
   * what is not the newest.
   */
  async #steppedApart(one: SimNode, other: SimNode): Promise<void> {
    const { operator } = this.#weather;
    const pair = await this.#withPrimary(one, other, one);
    if (pair === null) return;
    const [from, to] = pair;
    if (!(await this.#writesUnderWay(from))) return;
    this.#sim.working = false;
    this.#cut(from, to);
    if (!(await this.#stepDown(from))) return this.#heal();
    await operator.promote(to, false);
    if ((await this.#pause(200)) && this.#sim.random.oneIn(2)) await operator.demote(to, false);
    this.#heal();
  }

  /** The primary of a pair, which is made one when there is none, and its peer in step; null: it has not come to that. */
  async #withPrimary(
    one: SimNode,
    other: SimNode,
    chosen: SimNode,
  ): Promise<[SimNode, SimNode] | null> {
    const { model } = this.#sim;
    if (!one.primary && !other.primary) await this.#weather.operator.promote(chosen, false);
    const [primary, peer] = one.primary ? [one, other] : [other, one];
    const inStep = () => model.view(primary.index).inStep;
    return (await this.#until(inStep, this.#sim.step + 500)) ? [primary, peer] : null;
  }

  /** Protocol A: a primary crashes with writes on their way that have completed, and is back before anybody takes its place. */
  async #fallen(one: SimNode, other: SimNode): Promise<void> {
    const { random, step, model } = this.#sim;
    const from = one.primary ? one : other;
    if (!(await this.#until(() => model.view(from.index).inStep, step + 500))) return;
    if (!(await this.#writesUnderWay(from))) return;
    this.#weather.crash(from, random.oneIn(4) ? 'power' : 'process');
    this.#sim.disturbed();
    this.#weather.operator.restart(from);
  }

  /**
   * The disk of a primary fails with its peer in step; while it works at that one, or waits for a decision, the link breaks, or one crashes. Of a
   * peer that is slow to take over the link breaks before.
   */
  async #lostDisk(one: SimNode, other: SimNode): Promise<void> {
    const { random, step, model, network } = this.#sim;
    const { operator } = this.#weather;
    const [from, to] = one.primary ? [one, other] : [other, one];
    if (!from.primary && from.status?.disk === 'UpToDate') await operator.promote(from, false);
    if (!(await this.#until(() => model.view(from.index).inStep, step + 500))) return;
    const chances = ['dataRead', 'dataWrite', 'dataFlush', 'metaWrite'] as const;
    this.#weather.faults(from, { [`${random.pick(chances)}ErrorOneIn`]: 2 }, 300);
    this.#sim.disturbed();
    const slow = random.oneIn(3);
    if (slow) this.#weather.faults(to, { hang: true }, 400);
    const letsGo = () => slow && from.status?.disk === 'Failed';
    const hasFailed = () => from.diskless || from.status?.suspended === true || letsGo();
    if (!(await this.#until(hasFailed, this.#sim.step + 400))) return;
    if (letsGo()) network.break('rst');
    if (!(await this.#pause(200))) return;
    const event = random.pick(['reset', 'peer', 'itself', 'moved'] as const);
    if (event === 'reset') network.break('rst');
    else if (event === 'peer') this.#weather.crash(to, random.oneIn(2) ? 'process' : 'power');
    else this.#weather.crash(from, random.oneIn(2) ? 'process' : 'power');
    this.#sim.disturbed();
    if (event === 'moved') await operator.promote(to, false);
    await this.#pause(100);
    for (const node of [one, other]) operator.restart(node);
  }

  /** Applications end what they do, and the node is secondary; false: it cannot, or the weather is over. */
  async #stepDown(node: SimNode): Promise<boolean> {
    this.#sim.working = false;
    await this.#until(() => node.pending.size === 0, this.#sim.step + 500);
    if (node.primary) await this.#weather.operator.demote(node, false);
    this.#sim.working = !this.#weather.over;
    return !node.primary && !this.#weather.over;
  }

  /** The link breaks while the peer's disk is slow, and is wanted again before the writes of the old one have ended. */
  async #brokenAtSlowDisk(one: SimNode, other: SimNode): Promise<void> {
    const secondary = [one, other].find((node) => !node.primary) ?? one;
    this.#weather.faults(secondary, { hang: true }, 1500);
    this.#sim.disturbed();
    if (!(await this.#pause(150))) return;
    this.#sim.network.break('rst');
    this.#sim.disturbed();
  }
}
