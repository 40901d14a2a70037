/** The oracle: which copy follows which lineage, what each completed request promises, and the checks at every turn of a copy's fate. */
import { checkCopy, Lineage, NEVER, SECTOR_BYTES, stampText, type WriteRecord } from './lineage.ts';
import type { SimCompletion, SimRequest } from './machine.ts';
import { Violation } from './violation.ts';

/** What the model reads of the world. */
export interface ModelWorld {
  readonly protocol: 'A' | 'C';
  readonly names: readonly string[];
  stamps(node: number): Float64Array;
  /** What a power cut now would leave of it, when all that is not flushed is lost. */
  durableStamps(node: number, offset: number, length: number): Float64Array;
  /** Whose disk takes what completes there now: its own, or that of the peer that a node without a disk works at. */
  worksAt(node: number): number;
  /** A flush failed there: nothing is promised of that disk (R11). */
  flushFailed(node: number): boolean;
  /** It has been Failed since it was made: what it has counts less than the other copy. */
  diskFailed(node: number): boolean;
  /** Sectors of chunks in which the two copies differ. */
  differing(a: number, b: number): Array<[first: number, count: number]>;
  /** The node's own link as it sees it now. */
  link(node: number): LinkView;
  primary(node: number): boolean;
  /** A daemon has the volume open. */
  open(node: number): boolean;
  /** Requests of the node's device that have not completed. */
  pending(node: number): Iterable<Pending>;
}

export interface LinkView {
  /** Another one for every link; 0: none. */
  id: number;
  peer: number;
  /** Connected, and nothing is left to be resynced. */
  inStep: boolean;
  connected: boolean;
  active: boolean;
}

interface Copy {
  /** Null: nothing is known of it (new, or its disk was replaced). */
  lineage: Lineage | null;
  /** Not being overwritten by a resync. */
  whole: boolean;
  /** What it becomes when the resync ends. */
  pending: Lineage | null;
  /** A person said that its changes may be lost. */
  yields: boolean;
  /** Its daemon has died since it was promoted: what was on its way to a peer then may be lost with it (protocol A). */
  fell: boolean;
}

export interface Pending {
  readonly request: SimRequest;
  readonly submitted: number;
  readonly submittedUs: number;
  readonly link: LinkView;
  readonly lineage: Lineage;
  readonly write: WriteRecord | null;
  /** Reads: the oldest place that each sector may show. */
  readonly floors: Int32Array | null;
  /** The node is no primary: it must not succeed. */
  readonly doomed: boolean;
}

export class Model {
  readonly #world: ModelWorld;
  readonly #copies: Copy[];
  #tick = 0;
  #lineages = 0;
  /** Ticks at which the links began, by id. */
  readonly #linkTicks = new Map<number, number>();
  /** Ticks at which nodes lost their power last. */
  readonly #powerCuts: number[] = [];
  readonly #byStamp = new Map<number, WriteRecord>();
  /** Completed and checked. */
  reads = 0;
  writes = 0;
  flushes = 0;
  errors = 0;

  constructor(world: ModelWorld) {
    this.#world = world;
    this.#copies = world.names.map(() => ({
      lineage: null,
      whole: false,
      pending: null,
      yields: false,
      fell: false,
    }));
  }

  copy(node: number): Readonly<Copy> {
    return this.#copies[node]!;
  }

  view(node: number): LinkView {
    return this.#world.link(node);
  }

  // --- requests ---

  /** A request is about to be given to the device of a primary. */
  submitted(node: number, request: SimRequest, nowUs: number): Pending {
    const lineage = this.#copies[node]!.lineage;
    // A device may be taken over only to be taken away: what waits on it fails (`secondary --force` in a recovery).
    const doomed = !this.#world.primary(node);
    if (lineage === null || (lineage.owner !== node && !doomed)) {
      throw new Violation(
        'device',
        `${this.#world.names[node]} takes requests and was never promoted`,
      );
    }
    this.#tick += 1;
    const first = request.offset / SECTOR_BYTES;
    const count = request.length / SECTOR_BYTES;
    let write: WriteRecord | null = null;
    let floors: Int32Array | null = null;
    if (doomed) {
      // Nothing comes of it.
    } else if (request.op === 'read') {
      floors = new Int32Array(count);
      for (let i = 0; i < count; i++) floors[i] = lineage.floor(first + i);
    } else if (request.op !== 'flush') {
      const stamp = request.op === 'write' ? request.stamp! : 0;
      write = lineage.add(stamp, first, count, request.fua === true, this.#tick);
      if (stamp !== 0) this.#byStamp.set(stamp, write);
    }
    const link = this.#world.link(node);
    return {
      request,
      submitted: this.#tick,
      submittedUs: nowUs,
      link,
      lineage,
      write,
      floors,
      doomed,
    };
  }

  completed(node: number, pending: Pending, completion: SimCompletion): void {
    this.#tick += 1;
    const { request, write } = pending;
    if (completion.result !== 0) this.errors += 1;
    if (pending.doomed) {
      if (completion.result !== 0) return;
      const name = this.#world.names[node];
      throw new Violation(
        'device',
        `a ${request.op} succeeded at ${name}, which took it as secondary`,
      );
    }
    if (request.op === 'read') {
      if (completion.result === 0) this.#checkRead(node, pending, completion.stamps!);
      return;
    }
    const now = this.#world.link(node);
    const { link } = pending;
    // In step from the beginning to the end, over one link: what completed did so with the peer.
    const together = now.inStep && link.inStep && now.id === link.id ? now.peer : -1;
    if (write !== null) {
      write.completed = this.#tick;
      write.failed = completion.result !== 0;
      const at = this.#world.worksAt(node);
      if (now.active) write.linked |= 1 << now.peer;
      if (at !== node) write.linked |= 1 << at;
      if (write.failed) {
        pending.lineage.dispute(write);
        return;
      }
      this.writes += 1;
      write.there[at] = this.#tick;
      // Without a disk nothing completes that is only in the peer's cache.
      if (write.fua || at !== node) write.durable[at] = this.#tick;
      if (together >= 0 && this.#world.protocol === 'C') {
        // That its power went meanwhile is not known here yet.
        const cut = this.#powerCuts[together] ?? 0;
        if (cut < pending.submitted) write.there[together] ??= this.#tick;
        if (write.fua) write.durable[together] ??= this.#tick;
        if (write.fua) this.#checkFlushed(together, [write]);
      }
      if (write.fua || at !== node) this.#checkFlushed(at, [write]);
      return;
    }
    if (completion.result !== 0) return;
    this.flushes += 1;
    const { lineage, submitted } = pending;
    const at = this.#world.worksAt(node);
    this.#checkFlushed(at, this.#durable(lineage, at, submitted));
    if (together >= 0 && this.#world.protocol === 'C') {
      this.#checkFlushed(together, this.#durable(lineage, together, submitted));
    }
  }

  /** All that completed before a tick is safe at a node. Returns what was not known to be. */
  #durable(lineage: Lineage, node: number, before: number): WriteRecord[] {
    const fresh: WriteRecord[] = [];
    for (let at = lineage.writes.length - 1; at >= 0; at--) {
      const write = lineage.writes[at]!;
      if (write.completed >= before || write.failed) continue;
      if (write.durable[node] === undefined) fresh.push(write);
      write.durable[node] ??= this.#tick;
      write.there[node] ??= this.#tick;
    }
    return fresh;
  }

  /** R11: the application was told just now that these are safe; a power cut at this very moment takes none of them back. */
  #checkFlushed(node: number, writes: readonly WriteRecord[]): void {
    const { whole, lineage } = this.#copies[node]!;
    if (!whole || this.#world.flushFailed(node)) return;
    for (const write of writes) {
      if (write.lineage !== lineage) return;
      const { first, count } = write;
      const stamps = this.#world.durableStamps(node, first * SECTOR_BYTES, count * SECTOR_BYTES);
      for (let i = 0; i < count; i++) {
        const sector = first + i;
        if (lineage.disputed(sector) || lineage.includes(sector, stamps[i]!, write)) continue;
        throw new Violation(
          'promise',
          `a flush, or FUA write, has completed: a power cut leaves ${stampText(stamps[i]!)} in sector ${sector} of ` +
            `${this.#world.names[node]}, and not ${stampText(write.stamp)} (submitted ${write.submitted}, completed ${write.completed})`,
        );
      }
    }
  }

  #checkRead(node: number, { request, lineage, floors }: Pending, stamps: Float64Array): void {
    this.reads += 1;
    const first = request.offset / SECTOR_BYTES;
    for (let i = 0; i < stamps.length; i++) {
      const sector = first + i;
      const place = lineage.place(sector, stamps[i]!);
      if (place >= floors![i]!) continue;
      const history = lineage.historyOf(sector).map((each) => stampText(each.stamp));
      throw new Violation(
        'read',
        `sector ${sector} of ${this.#world.names[node]} was read as ${stampText(stamps[i]!)}, ` +
          (place < 0 ? 'which was never written there' : `older than what had completed before`) +
          ` (base ${stampText(lineage.base[sector]!)}, writes ${history.join(' ')}, completed up to place ${floors![i]})`,
      );
    }
  }

  /** A primary let go of its disk: everything before is durable at the peer (R7). */
  letGo(node: number, peer: number): void {
    const { lineage } = this.#copies[node]!;
    this.#tick += 1;
    if (lineage === null) return;
    this.#checkLetGo(node, peer);
    this.#checkFlushed(peer, this.#durable(lineage, peer, this.#tick));
  }

  /** A node without a disk goes on at a copy that nobody else has changed. */
  #checkLetGo(node: number, peer: number): void {
    const { names } = this.#world;
    const [mine, theirs] = [this.#copies[node]!, this.#copies[peer]!];
    if (theirs.whole && theirs.lineage === mine.lineage) return;
    throw new Violation(
      'apart',
      `${names[node]} has no disk, and works at ${names[peer]}, whose copy is ${theirs.whole ? `of ${theirs.lineage?.name}` : 'not whole'}, and not of ${mine.lineage?.name}`,
    );
  }

  // --- roles ---

  /** The node became primary. `force`: by a person's decision. `declared`: it was Inconsistent. */
  promoted(node: number, force: boolean, declared: boolean): void {
    this.#tick += 1;
    const copy = this.#copies[node]!;
    const stamps = this.#world.stamps(node);
    if (!force) this.#checkPromotion(node, copy, stamps);
    const lineage = this.#begin(node, stamps, declared);
    const { id, inStep, connected, active, peer } = this.#world.link(node);
    copy.yields = false;
    copy.fell = false;
    if (!active) return;
    const other = this.#copies[peer]!;
    if (!other.whole) other.pending = lineage;
    // Of a resync that ends the target knows first.
    const theirs = this.#world.link(peer);
    if (!connected && !(theirs.connected && theirs.id === id)) return;
    // Two secondaries that are in step hold the same.
    const differing = inStep ? this.#world.differing(node, peer) : [];
    if (differing.length > 0) {
      throw new Violation(
        'in-step',
        `${lineage.name} begins in step with a copy that differs: ${rangesText(differing)}`,
      );
    }
    this.#follow(peer, lineage);
  }

  /** A new lineage, from what is on the node's disk. */
  #begin(node: number, stamps: Float64Array, declared: boolean): Lineage {
    const parent = this.#copies[node]!.lineage;
    const gaveUp = declared || (parent?.declared === true && !this.#allDescendFrom(parent));
    this.#lineages += 1;
    const lineage = new Lineage(this.#lineages, node, parent, stamps, gaveUp);
    this.#follow(node, lineage);
    return lineage;
  }

  /** The lineage that a copy stands for now. Nobody writes to one that is no primary's: what is there is all of it. */
  #lineageOf(node: number): Lineage | null {
    const copy = this.#copies[node]!;
    if (copy.lineage === null || !copy.whole || this.#world.primary(node)) return copy.lineage;
    const stamps = this.#world.stamps(node);
    checkCopy(
      'a copy that others get',
      node,
      this.#world.names[node]!,
      copy.lineage,
      stamps,
      'there',
    );
    const lineage = this.#begin(node, stamps, false);
    lineage.cached = true;
    return lineage;
  }

  /** Every copy has been brought to what was declared the truth. */
  #allDescendFrom(lineage: Lineage): boolean {
    return this.#copies.every((copy) => {
      let at = copy.whole ? copy.lineage : null;
      while (at !== null && at !== lineage) at = at.parent;
      return at !== null;
    });
  }

  #checkPromotion(node: number, copy: Copy, stamps: Float64Array): void {
    const name = this.#world.names[node]!;
    const lineage = copy.whole ? copy.lineage : copy.pending;
    if (lineage === null) {
      throw new Violation(
        'promotion',
        `${name} became primary without force, and holds nothing whole`,
      );
    }
    checkCopy('a promotion without force', node, name, lineage, stamps, 'there');
  }

  /** Demoted: linked copies have everything (R18). What they lack of another is marked, and this copy known to be the newer one (R7). */
  demoted(node: number, before: LinkView): void {
    const { lineage, fell } = this.#copies[node]!;
    const now = this.#world.link(node);
    this.#tick += 1;
    if (lineage === null) return;
    if (!now.active && !fell) {
      for (const write of lineage.writes) if (write.there[node] !== undefined) write.linked = 0;
    }
    if (!now.inStep || !before.inStep || now.id !== before.id) return;
    this.#durable(lineage, node, this.#tick);
    this.#durable(lineage, now.peer, this.#tick);
  }

  /** `connect --discard-my-data`. */
  yields(node: number, yields: boolean): void {
    this.#copies[node]!.yields = yields;
  }

  invalidated(node: number): void {
    Object.assign(this.#copies[node]!, { yields: true, whole: false });
  }

  diskReplaced(node: number): void {
    Object.assign(this.#copies[node]!, {
      lineage: null,
      whole: false,
      pending: null,
      yields: false,
    });
  }

  // --- links ---

  /** True for the first of both sides to start: nothing of the link has been written yet. */
  linkBegins(id: number): boolean {
    this.#tick += 1;
    if (this.#linkTicks.has(id)) return false;
    this.#linkTicks.set(id, this.#tick);
    return true;
  }

  /** `target` is durably Inconsistent from now on (R17), and will be what `source` is. */
  becomesTarget(target: number, source: number): void {
    const copy = this.#copies[target]!;
    const lineage = this.#copies[source]!.lineage;
    if (copy.whole && !copy.yields) this.#checkOverwritten(target, source);
    copy.whole = false;
    copy.pending = lineage;
  }

  /** Nothing that only this copy has may be overwritten, unless a person said so. */
  #checkOverwritten(target: number, source: number): void {
    const { names } = this.#world;
    const over = this.#copies[source]!.lineage;
    if (over === null || over.declared) return;
    const ranges = this.#world.differing(target, source);
    if (ranges.length === 0) return;
    const mine = this.#world.stamps(target);
    const theirs = this.#world.stamps(source);
    for (const [first, count] of ranges) {
      for (let sector = first; sector < first + count; sector++) {
        if (mine[sector] === theirs[sector]) continue;
        const write = this.#byStamp.get(mine[sector]!);
        if (write === undefined || write.completed === NEVER || write.failed) continue;
        // What the source wrote and lost itself was judged when it crashed.
        if (write.lineage.owner === source) continue;
        if ((write.linked & (1 << source)) !== 0 && !this.#isLast(target, over, write)) continue;
        if (over.includes(sector, theirs[sector]!, write)) continue;
        throw new Violation(
          'overwritten',
          `${names[target]} becomes the target of ${names[source]} and loses ${stampText(write.stamp)} of sector ${sector}, ` +
            `written in lineage ${write.lineage.name} while they were apart; ${names[source]} has ${stampText(theirs[sector]!)} of lineage ${over.name}`,
        );
      }
    }
  }

  /** The target wrote it itself, and nobody has taken its place since: of what was on its way when it crashed it has the only copy (protocol A). */
  #isLast(target: number, over: Lineage, write: WriteRecord): boolean {
    if (over !== write.lineage || over.owner !== target) return false;
    return !this.#world.flushFailed(target) && !this.#world.diskFailed(target);
  }

  /** Both begin a link with nothing to do. */
  inStep(a: number, b: number): void {
    for (const [node, peer] of [
      [a, b],
      [b, a],
    ] as const) {
      if (this.#world.worksAt(node) !== peer) continue;
      this.#checkLetGo(node, peer);
      return;
    }
    const differing = this.#settledDifferences(a, b);
    const { names } = this.#world;
    if (differing.length > 0) {
      throw new Violation(
        'in-step',
        `${names[a]} and ${names[b]} begin a link with nothing to do, and differ: ${rangesText(differing)}`,
      );
    }
    this.#tick += 1;
    const leader = this.#world.primary(b) ? b : a;
    const lead = this.#lineageOf(leader);
    if (lead === null) return;
    for (const node of [a, b]) this.#follow(node, lead);
    // A primary's own cache is flushed when its application says so.
    for (const node of [a, b])
      if (!this.#world.primary(node)) this.#durable(lead, node, this.#tick);
  }

  /**
   * Where two copies differ, without what is being written: the peer may have had it over the last link, and this disk has it when the
   * request completes; if it fails it is marked (R9), and until then its extents are hot (R3).
   */
  #settledDifferences(a: number, b: number): Array<[number, number]> {
    const differing = this.#world.differing(a, b);
    if (differing.length === 0) return [];
    const [one, other] = [this.#world.stamps(a), this.#world.stamps(b)];
    const busy = new Set<number>();
    for (const node of [a, b]) {
      for (const { write } of this.#world.pending(node)) {
        for (let i = 0; i < (write?.count ?? 0); i++) busy.add(write!.first + i);
      }
    }
    return differing.filter(([first, count]) => {
      for (let sector = first; sector < first + count; sector++) {
        if (one[sector] !== other[sector] && !busy.has(sector)) return true;
      }
      return false;
    });
  }

  /** The target has what the source has; -1: its daemon of that link has ended, or has another link. */
  synced(target: number, source: number, linkId: number): void {
    const copy = this.#copies[target]!;
    this.#tick += 1;
    // A source that died meanwhile may hold what never went over the link.
    const lives = source >= 0 && this.#world.open(source);
    const lineage = lives ? this.#lineageOf(source) : copy.pending;
    if (lineage === null) return;
    this.#follow(target, lineage);
    copy.yields = false;
    // What completed before the link was marked and copied, and is durable there; later writes went over the link.
    this.#durable(lineage, target, this.#linkTicks.get(linkId) ?? 0);
    if (!lives || this.#world.protocol !== 'C') return;
    const [from, to] = [this.#world.link(source), this.#world.link(target)];
    if (from.id !== linkId || to.id !== linkId) return;
    for (const write of lineage.writes) {
      if (write.completed !== NEVER && !write.failed) write.there[target] ??= this.#tick;
    }
  }

  #follow(node: number, lineage: Lineage): void {
    const copy = this.#copies[node]!;
    copy.lineage = lineage;
    copy.pending = null;
    copy.whole = true;
  }

  // --- crashes ---

  /** The daemon died, or its machine: what is there now is what counts. */
  crashed(node: number, kind: 'process' | 'power'): void {
    const copy = this.#copies[node]!;
    this.#tick += 1;
    copy.fell = true;
    if (kind === 'power') this.#powerCuts[node] = this.#tick;
    if (!copy.whole || copy.lineage === null) return;
    const demand = kind === 'power' ? 'durable' : 'there';
    const name = this.#world.names[node]!;
    const stamps = this.#world.stamps(node);
    let { lineage } = copy;
    while (kind === 'power' && lineage.cached && lineage.owner === node && lineage.parent !== null)
      lineage = lineage.parent;
    checkCopy(`a ${kind} crash`, node, name, lineage, stamps, demand);
    if (kind === 'process') return;
    // What was only in the cache is promised no longer; and what its own primary lost is nobody's any more.
    for (const write of copy.lineage.writes) {
      if (write.durable[node] === undefined) delete write.there[node];
    }
    if (copy.lineage.owner === node) this.#begin(node, stamps, false);
  }
}

function rangesText(ranges: ReadonlyArray<readonly [number, number]>): string {
  const shown = ranges
    .slice(0, 8)
    .map(([first, count]) => `sectors ${first}..${first + count - 1}`);
  return shown.join(', ') + (ranges.length > 8 ? ` and ${ranges.length - 8} more` : '');
}
