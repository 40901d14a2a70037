// Many connections to one port that say nothing, all held at once, by helper processes: as many as a process may have
// files decides how many of those there are.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Daemon, type ScenarioContext } from '../vm/guest/support.ts';

/** Files that Node has for itself. */
const SPARE = 100;

/** Files that a process started from here may have; Node takes all that it may. */
function filesMax(): number {
  const found = /^Max open files\s+\S+\s+(\d+|unlimited)/m.exec(
    readFileSync('/proc/self/limits', 'utf8'),
  );
  if (found === null) throw new Error('/proc/self/limits has no line for open files');
  return found[1] === 'unlimited' ? Number.POSITIVE_INFINITY : Number(found[1]);
}

/** Files that a process has open. */
export function filesOf(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).length;
}

export class Crowd {
  private readonly members: Array<{ daemon: Daemon; count: number }> = [];

  /** Begins to connect; what is held goes with the scenario at the latest. */
  static start(t: ScenarioContext, port: number, count: number): Crowd {
    const crowd = new Crowd();
    const each = Math.min(count, filesMax() - SPARE);
    if (each < 1) throw new Error(`a process may have ${filesMax()} files here: too few`);
    const program = join(t.checkout, 'test/tools/crowd.mjs');
    for (let left = count; left > 0; left -= each) {
      const size = Math.min(each, left);
      const argv = [process.execPath, program, String(port), String(size)] as const;
      const name = `crowd${crowd.members.length}`;
      crowd.members.push({ daemon: Daemon.start(t, [...argv], { name }), count: size });
    }
    return crowd;
  }

  /** All were connected, and this side has closed none of them. */
  get isComplete(): boolean {
    for (const { daemon } of this.members) {
      if (daemon.exit !== undefined) throw new Error(`${daemon.name} ended: ${daemon.tail()}`);
    }
    return this.members.every(({ daemon, count }) => daemon.output.includes(`${count} connected`));
  }

  async leave(): Promise<void> {
    await Promise.all(this.members.map(({ daemon }) => daemon.kill()));
  }
}
