/** The end of every seed: the copies become one, hold what was promised, stop cleanly and start again with nothing to do. */
import { PROMOTE_ANSWER_MS } from '../../lib/replication/promotion.ts';
import { checkCopy } from './lineage.ts';
import { SimChecks } from './machine.ts';
import type { SimNode } from './node.ts';
import type { Operator } from './operator.ts';
import type { Simulation } from './simulation.ts';
import { Violation } from './violation.ts';

/** Steps that applications are given to see their last requests end. */
const QUIET_STEPS_MAX = 20_000;
/** The longest flush interval of all plans, and some time for what it was before. */
const SWEEP_MS_MAX = 6000;

export async function peace(sim: Simulation, operator: Operator): Promise<void> {
  const { plan, nodes } = sim;
  // A resync must end though writing goes on; where nothing else is looked for, the writing may stop.
  if (plan.theme !== 'resync-under-writes') sim.working = false;
  await operator.settle();
  sim.working = false;
  await quiet(sim);
  await operator.settle();
  if (nodes.some((node) => node.writeFailed)) {
    const end = sim.time.nowUs + SWEEP_MS_MAX * 1000;
    await sim.until(() => sim.time.nowUs >= end);
    await operator.settle();
  }
  await arrived(sim);
  verify(sim, 'at the end');
  const isServed = () => nodes.some((node) => node.primary);
  if (!isServed()) await operator.promote(sim.random.pick(nodes), false);
  // Refused, it may be because a promotion of before is on its way at the other node.
  const late = sim.time.nowUs + PROMOTE_ANSWER_MS * 1000;
  await sim.until(() => isServed() || sim.time.nowUs >= late);
  const primary = nodes.find((node) => node.primary);
  if (primary === undefined) {
    throw new Violation('end', `nobody can be primary: ${sim.checks.describeNodes()}`);
  }
  await lastWrites(sim, primary);
  verify(sim, 'after the last writes');
  await restart(sim);
  verify(sim, 'after a clean restart');
  if (plan.theme === 'rot') await refuseNewer(sim, sim.random.pick(nodes));
}

/** What a newer program has written is refused, and left as it was. */
async function refuseNewer(sim: Simulation, node: SimNode): Promise<void> {
  await stop(node);
  const { rotten } = node;
  node.rotten = true;
  node.machine.claimNewer(true);
  node.start();
  await sim.until(() => node.state !== 'starting');
  if (node.state !== 'failed' || !/newer/.test(node.failure)) {
    const what = node.failure === '' ? node.state : node.failure;
    throw new Violation('version', `${node.name} on metadata of a newer version: ${what}`);
  }
  node.machine.claimNewer(false);
  node.rotten = rotten;
  node.start();
  await comeBack(sim, linked(sim));
}

async function quiet(sim: Simulation): Promise<void> {
  const end = sim.step + QUIET_STEPS_MAX;
  const isQuiet = () => sim.nodes.every((node) => node.pending.size === 0);
  await sim.until(() => isQuiet() || sim.step > end);
  if (!isQuiet()) {
    throw new Violation('late', `requests do not end in peace: ${sim.checks.describeNodes()}`);
  }
}

function verify(sim: Simulation, when: string): void {
  const { nodes, model } = sim;
  for (const node of nodes) {
    const status = node.status!;
    const dirty = status.peers.find(({ slot }) => slot === status.linkSlot)?.dirtyChunks;
    if (dirty !== 0) {
      throw new Violation(
        'end',
        `${when} ${node.name} has ${dirty} chunks marked: ${sim.checks.describeNodes()}`,
      );
    }
    const { lineage } = model.copy(node.index);
    if (lineage === null) continue;
    const stamps = node.machine.readStamps(0, sim.plan.volumeBytes);
    checkCopy(when, node.index, node.name, lineage, stamps, 'there');
  }
  for (const other of nodes.slice(1)) {
    const differing = SimChecks.differing(nodes[0]!.machine, other.machine);
    if (differing.length > 0) {
      throw new Violation(
        'end',
        `${when} ${differing.length} chunks of ${nodes[0]!.name} and ${other.name} differ, the first is ${differing[0]}`,
      );
    }
  }
}

/** A write and a flush that go through to the other side. */
export async function lastWrites(sim: Simulation, primary: SimNode): Promise<void> {
  if (!primary.serving) return;
  for (let i = 0; i < 4; i++) sim.submit(primary, sim.workload.next());
  await quiet(sim);
  sim.submit(primary, { op: 'flush', offset: 0, length: 0 });
  await quiet(sim);
  await arrived(sim);
}

/** Under protocol A what has completed may still be on its way. */
async function arrived(sim: Simulation): Promise<void> {
  const end = sim.step + QUIET_STEPS_MAX;
  const isThere = () => sim.nodes.every((node) => node.machine.counters().transferWrites === 0);
  await sim.until(() => isThere() || sim.step > end);
  if (!isThere()) {
    throw new Violation(
      'late',
      `writes do not reach the peer in peace: ${sim.checks.describeNodes()}`,
    );
  }
}

/** Both stop and start again: the log is empty, and there is nothing to be copied. */
async function restart(sim: Simulation): Promise<void> {
  await stopAndStart(sim, linked(sim));
  for (const node of sim.nodes) {
    const { side } = node.linkParams!;
    if (side !== 'none')
      throw new Violation('stop', `after a clean stop of both ${node.name} begins as ${side}`);
  }
}

function linked({ nodes, model }: Simulation): () => boolean {
  return () => nodes.every((node) => node.running && model.view(node.index).inStep);
}

async function stop(node: SimNode): Promise<void> {
  if (await node.stop()) return;
  throw new Violation('stop', `${node.name} does not stop cleanly in peace`);
}

async function comeBack(sim: Simulation, isThere: () => boolean): Promise<void> {
  const end = sim.step + QUIET_STEPS_MAX;
  await sim.until(() => isThere() || sim.step > end);
  if (isThere()) return;
  const nodes = sim.checks.describeNodes();
  throw new Violation('end', `not there again after a clean restart: ${nodes}`);
}

/** All stop, cleanly, and start again, until `isThere`: nobody finds anything in its log. */
export async function stopAndStart(sim: Simulation, isThere: () => boolean): Promise<void> {
  const { nodes } = sim;
  for (const node of sim.random.shuffled(nodes)) await stop(node);
  await sim.steps(1);
  for (const node of nodes) node.start();
  await comeBack(sim, isThere);
  for (const node of nodes) {
    const { crashed, replayedExtents } = node.native!.attach;
    if (!crashed && replayedExtents === 0) continue;
    throw new Violation(
      'stop',
      `after a clean stop ${node.name} found ${replayedExtents} hot extents${crashed ? ', and a crash' : ''}`,
    );
  }
}
