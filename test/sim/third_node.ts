/**
 * Three nodes, of which two are linked at a time: who is linked with whom is said by command, and the one that is left out is given what
 * it missed when its turn comes. Links break, nodes crash, the primary changes its partner, the application moves to the partner.
 */
import { VOLUME } from './config.ts';
import { checkCopy } from './lineage.ts';
import { SimChecks } from './machine.ts';
import type { SimNode } from './node.ts';
import type { Operator } from './operator.ts';
import { lastWrites, stopAndStart } from './peace.ts';
import type { Simulation } from './simulation.ts';
import { Violation } from './violation.ts';
import type { Weather } from './weather.ts';

const LOOK_STEPS = 40;
/** Looks at two that are to become one, until a person takes stronger means; and until nothing helps. */
const PATIENCE = 60;
const LOOKS_MAX = 1200;
/** For two to come into step by themselves. */
const SUCCESSION_STEPS = 3000;

export class ThirdNode {
  readonly #sim: Simulation;
  readonly #operator: Operator;
  readonly #weather: Weather;
  /** The one that the application is at, and the one that it is linked with. */
  #lead: SimNode;
  #partner: SimNode;

  constructor(sim: Simulation, operator: Operator, weather: Weather) {
    this.#sim = sim;
    this.#operator = operator;
    this.#weather = weather;
    [this.#lead, this.#partner] = sim.nodes as [SimNode, SimNode];
  }

  async run(lead: SimNode): Promise<void> {
    const { nodes, random, plan } = this.#sim;
    this.#lead = lead;
    const others = random.shuffled(nodes.filter((node) => node !== lead));
    const isStrange = plan.theme === 'unmet-pairs';
    // Everybody has had everything once, or the last of them comes later.
    for (const node of isStrange ? others.slice(0, 1) : others) await this.#meet(node);
    this.#sim.working = true;
    if (isStrange) await this.#succession(others[1]!);
    const end = this.#sim.step + plan.steps;
    while (this.#sim.step < end) {
      await this.#sim.steps(random.between(50, 500));
      await this.#event();
      for (const node of nodes) this.#operator.restart(node);
    }
    this.#weather.end();
    this.#sim.working = false;
    await this.#peace();
  }

  async #event(): Promise<void> {
    const { random, network, nodes, trace } = this.#sim;
    const event = random.weighted({
      reset: 3,
      tail: 2,
      partner: 3,
      kill: 2,
      power: 2,
      failover: 2,
      stall: 1,
      partition: 1,
      hang: 0.5,
      'slow-disk': 1,
      'no-buffers': 0.5,
      'clean-restart': 1,
    });
    trace.add('third', `${event} (${this.#lead.name} and ${this.#partner.name})`);
    const one = random.pick([this.#lead, this.#partner]);
    switch (event) {
      case 'reset':
        network.break('rst');
        break;
      case 'tail':
        network.break('tail');
        break;
      case 'kill':
        this.#weather.crash(one, 'process');
        break;
      case 'power':
        this.#weather.crash(one, 'power');
        break;
      case 'partner':
        await this.#link(random.pick(nodes.filter((node) => node !== this.#lead)));
        break;
      case 'failover':
        await this.#failover();
        break;
      case 'clean-restart':
        // Nothing is asked of a daemon meanwhile that would end without an answer.
        await this.#operator.end(one);
        break;
      default:
        this.#weather.happen(event);
    }
    this.#sim.disturbed();
    if (!nodes.some((node) => node.primary)) await this.#operator.promote(this.#lead, false);
  }

  /**
   * The primary crashes. Its partner brings a node up to date that the primary has never met, and the application moves to that one, with the same
   * partner. Then this one crashes, and the first is back and meets the partner: what was written meanwhile is newer than all that it knows.
   */
  async #succession(heir: SimNode): Promise<void> {
    const { random, trace } = this.#sim;
    const [first, partner] = [this.#lead, this.#partner];
    await this.#sim.steps(random.between(1, 200));
    if (!(await this.#inStep(first, partner))) return;
    trace.add('third', `${heir.name} is to succeed ${first.name}, beside ${partner.name}`);
    this.#weather.crash(first, random.oneIn(2) ? 'process' : 'power');
    this.#lead = partner;
    await this.#link(heir);
    if (!(await this.#inStep(partner, heir))) return;
    if (!(await this.#operator.promote(heir, false))) return;
    [this.#lead, this.#partner] = [heir, partner];
    await this.#sim.steps(random.between(50, 400));
    this.#weather.crash(heir, random.oneIn(2) ? 'process' : 'power');
    this.#sim.disturbed();
    // A daemon that starts wants to be linked with everybody.
    await this.#say(partner, heir, false);
    await this.#say(partner, first, true);
    this.#operator.restart(first);
    await this.#inStep(first, partner);
    if (first.primary || first.status?.suspended) await this.#operator.demote(first, true);
  }

  /** Waits for a while for two of them to be in step. */
  async #inStep(one: SimNode, other: SimNode): Promise<boolean> {
    const { model } = this.#sim;
    const end = this.#sim.step + SUCCESSION_STEPS;
    const isReady = () =>
      model.view(one.index).inStep &&
      model.view(one.index).peer === other.index &&
      model.view(other.index).inStep;
    await this.#sim.until(() => isReady() || this.#sim.step > end);
    return isReady();
  }

  async #failover(): Promise<void> {
    const [lead, partner] = [this.#lead, this.#partner];
    if (!this.#sim.model.view(lead.index).inStep) return;
    if (!(await this.#operator.demote(lead, false))) return;
    if (!(await this.#operator.promote(partner, false))) return;
    [this.#lead, this.#partner] = [partner, lead];
  }

  /** From now on the lead is to be linked with this one, and nobody else with anybody. */
  async #link(partner: SimNode): Promise<void> {
    const { nodes } = this.#sim;
    this.#partner = partner;
    this.#sim.disturbed();
    const pair = [this.#lead, partner];
    for (const together of [false, true]) {
      for (const node of nodes) {
        for (const peer of nodes) {
          const isPair = pair.includes(node) && pair.includes(peer);
          if (node !== peer && isPair === together) await this.#say(node, peer, together);
        }
      }
    }
  }

  async #say(node: SimNode, peer: SimNode, together: boolean, discard = false): Promise<void> {
    const what = `${together ? 'connect' : 'disconnect'} ${peer.name}`;
    if (discard) this.#sim.model.yields(node.index, true);
    await this.#operator.command(node, `${what}${discard ? ' --discard-my-data' : ''}`, () =>
      together
        ? node.replication?.connect(VOLUME, peer.name, discard)
        : node.replication?.disconnect(VOLUME, peer.name),
    );
  }

  async #peace(): Promise<void> {
    const { nodes } = this.#sim;
    this.#operator.heal();
    const others = nodes.filter((node) => node !== this.#lead);
    // The partner may have what the lead has not, so that it is the first.
    others.sort((a, b) => Number(b === this.#partner) - Number(a === this.#partner));
    for (const node of others) await this.#meet(node);
    // The last may have had it all the same; then it is marked for the one that was met before.
    const [first] = others;
    if (this.#dirtyChunks(first!) > 0) await this.#meet(first!);
    for (const node of others) this.#verify('at the end', node);
    if (!this.#lead.primary) await this.#operator.promote(this.#lead, false);
    if (!this.#lead.primary)
      throw new Violation('end', `${this.#lead.name} cannot be primary: ${this.#describe()}`);
    await lastWrites(this.#sim, this.#lead);
    this.#verify('after the last writes', this.#partner);
    // Who is linked with whom then is for their policies to say.
    await stopAndStart(this.#sim, () => nodes.every(({ running }) => running));
  }

  /** The lead's copy and this one are what they are to be, and the same. */
  #verify(when: string, other: SimNode): void {
    const { model, plan } = this.#sim;
    for (const node of [this.#lead, other]) {
      const { lineage } = model.copy(node.index);
      const stamps = node.machine.readStamps(0, plan.volumeBytes);
      if (lineage !== null) checkCopy(when, node.index, node.name, lineage, stamps, 'there');
    }
    const differing = SimChecks.differing(this.#lead.machine, other.machine);
    if (differing.length === 0) return;
    throw new Violation(
      'end',
      `${when} ${differing.length} chunks of ${this.#lead.name} and ${other.name} differ; ${this.#describe()}`,
    );
  }

  /** The lead and this one are linked, and become one; nobody writes, or the writing goes on. */
  async #meet(partner: SimNode): Promise<void> {
    const pair = [this.#lead, partner];
    let patience = 0;
    let leastDirty = Number.POSITIVE_INFINITY;
    for (let look = 0; look < LOOKS_MAX; look++, patience--) {
      for (const node of this.#sim.nodes) this.#operator.restart(node);
      // A resync that moves needs nobody.
      const dirty = this.#dirtyChunks(partner);
      if (dirty < leastDirty && look > 0) patience = PATIENCE;
      leastDirty = dirty;
      if (patience <= 0) {
        // What they say of each other, before they are told to try again.
        const connections = [
          ...(await this.#operator.words(this.#lead, partner)),
          ...(await this.#operator.words(partner, this.#lead)),
        ];
        // One that recovers asks its peers before it runs.
        await this.#link(partner);
        if (pair.every(({ running }) => running))
          await this.#decide(partner, look > 0, connections);
        patience = PATIENCE;
      }
      if (this.#isOne(partner)) return;
      await this.#sim.steps(LOOK_STEPS);
    }
    throw new Violation('settle', `the copies do not become one: ${this.#describe()}`);
  }

  /** Marked at the lead for this one. */
  #dirtyChunks(partner: SimNode): number {
    const slots = this.#lead.status?.peers ?? [];
    const slot = slots.find(({ nodeId }) => nodeId === partner.machine.nodeId);
    return slot?.dirtyChunks ?? Number.POSITIVE_INFINITY;
  }

  #isOne(partner: SimNode): boolean {
    const pair = [this.#lead, partner];
    return (
      pair.every(({ running }) => running) &&
      pair.every(({ status }) => status?.disk === 'UpToDate' && !status.suspended) &&
      pair.every((node) => this.#sim.model.view(node.index).inStep) &&
      this.#sim.model.view(this.#lead.index).peer === partner.index &&
      pair.every((node) => node.pending.size === 0 || this.#sim.working) &&
      pair.every((node) => this.#sim.working || node.machine.counters().transferWrites === 0)
    );
  }

  async #decide(partner: SimNode, late: boolean, connections: readonly string[]): Promise<void> {
    const lead = this.#lead;
    const operator = this.#operator;
    if (lead.status?.disk === 'Failed' || partner.status?.disk === 'Failed') {
      for (const node of [lead, partner]) {
        if (node.status?.disk === 'Failed' && !(await node.stop())) node.crash('process');
      }
      return;
    }
    for (const node of this.#sim.nodes) {
      // Also one that waits in a recovery: the application is with the lead.
      if (node !== lead && (node.primary || node.status?.suspended))
        await operator.demote(node, true);
    }
    const isStuck = !lead.primary || lead.status?.suspended === true;
    if (isStuck && !(await operator.promote(lead, false)) && late)
      await operator.promote(lead, true);
    if (!late) return;
    if (connections.includes('Unrelated')) await this.#remake(partner);
    else if (connections.includes('SplitBrain')) {
      await this.#say(partner, lead, true, true);
      await this.#say(lead, partner, true);
    } else {
      await operator.command(partner, `invalidate ${lead.name}`, () =>
        partner.replication?.invalidate(VOLUME, lead.name),
      );
    }
  }

  /**
   * In the middle of a full resync from a node that is away by now, or behind by more generations than the lead's history holds: only new
   * metadata let it start again (docs/ARCHITECTURE.md, Known limits).
   */
  async #remake(partner: SimNode): Promise<void> {
    this.#sim.trace.add('script', `${partner.name} needs new metadata`);
    await this.#operator.remake(partner);
    // The others are to read of its new name.
    for (const node of this.#sim.nodes)
      if (node.stale && node.running) await this.#operator.end(node);
  }

  #describe(): string {
    return this.#sim.checks.describeNodes();
  }
}
