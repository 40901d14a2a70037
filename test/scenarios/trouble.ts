// Trouble inside a daemon's threads: blocked, ended, thrown out, out of memory. test/tools/trouble.mjs makes it, in there.
import { strict as assert } from 'node:assert';
import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { type ScenarioContext, waitFor } from '../vm/guest/support.ts';
import { Cluster, type ClusterOptions } from './cluster.ts';
import type { ClusterNode } from './node.ts';
import type { Place } from './place.ts';

export type Thread = 'main' | 'replication' | 'policy';

/** A cluster as Cluster.form() makes it, whose daemons can be given trouble. */
export async function formTroubled(
  t: ScenarioContext,
  place: Place,
  options: ClusterOptions = {},
): Promise<Cluster> {
  const cluster = await Cluster.create(t, place, options);
  const module = pathToFileURL(join(t.checkout, 'test/tools/trouble.mjs'));
  for (const node of cluster.nodes) {
    const folder = folderOf(cluster, node);
    mkdirSync(folder);
    node.daemonEnv = { NODE_OPTIONS: `--import=${module.href}`, TIDEMARK_TROUBLE: folder };
  }
  await Promise.all([cluster.alpha.up('--primary', '--force'), cluster.beta.up()]);
  await cluster.synced();
  return cluster;
}

function folderOf(cluster: Cluster, node: ClusterNode): string {
  return join(cluster.directory, `trouble-${node.name}`);
}

/** What a thread was told to suffer. */
export class Trouble {
  private readonly path: string;
  private readonly begunMs = performance.now();

  private constructor(path: string) {
    this.path = path;
  }

  /** Returns when it has begun. */
  static async make(
    t: ScenarioContext,
    cluster: Cluster,
    node: ClusterNode,
    thread: Thread,
    what: 'exit' | 'throw' | 'leak' | 'block',
  ): Promise<Trouble> {
    const path = join(folderOf(cluster, node), thread);
    for (const suffix of ['.begun', '.release', '.over'])
      rmSync(`${path}${suffix}`, { force: true });
    writeFileSync(`${path}.new`, what);
    renameSync(`${path}.new`, path);
    await waitFor(t, `trouble in ${node.name}'s ${thread}`, () => existsSync(`${path}.begun`));
    return new Trouble(path);
  }

  private get isOver(): boolean {
    return existsSync(`${this.path}.over`);
  }

  /** Ends a block, when it has lasted for at least so long. What was seen before was seen while it lasted. */
  async release(t: ScenarioContext, blockMs: number): Promise<void> {
    await delay(this.begunMs + blockMs - performance.now());
    assert.equal(this.isOver, false, 'it was over before it was released');
    writeFileSync(`${this.path}.release`, '');
    await waitFor(t, 'the end of the trouble', () => this.isOver);
  }
}
