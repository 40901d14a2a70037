/** What all commands share: the global options, the config, and the way to the daemon. */

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { TidemarkError } from '../binding/errors.ts';
import type { ResolvedConfig, VolumeConfig } from '../config/resolved.ts';
import { ControlClient } from '../control/client.ts';
import { readSocketNote } from '../control/socket_note.ts';

export const CONFIG_NAME = 'tidemark.config.ts';
export const SYSTEM_CONFIG = `/etc/tidemark/${CONFIG_NAME}`;

export interface GlobalOptions {
  config?: string;
  node?: string;
  volume?: string;
  debug?: boolean;
}

const require = createRequire(import.meta.url);

// lib/cli and dist/cli are equally deep below the package's top.
export const VERSION = (require('../../package.json') as { version: string }).version;

export class Context {
  readonly options: GlobalOptions;

  constructor(options: GlobalOptions) {
    this.options = options;
  }

  /**
   * Absolute path of the config script.
   * @throws TidemarkError CONFIG_MISSING.
   */
  get configPath(): string {
    const { config } = this.options;
    if (config !== undefined) {
      const path = resolve(config);
      if (existsSync(path)) return path;
      throw new TidemarkError('CONFIG_MISSING', `config ${path} does not exist`);
    }
    const local = resolve(CONFIG_NAME);
    const found = [local, SYSTEM_CONFIG].find((path) => existsSync(path));
    if (found !== undefined) return found;
    const message = `no config: neither ${local} nor ${SYSTEM_CONFIG} exists; say --config FILE`;
    throw new TidemarkError('CONFIG_MISSING', message);
  }

  /** The node that the command line or the environment names, and which of them. */
  get node(): { name: string; source: string } | undefined {
    if (this.options.node !== undefined) return { name: this.options.node, source: '--node' };
    const name = process.env.TIDEMARK_NODE;
    return name ? { name, source: 'TIDEMARK_NODE' } : undefined;
  }

  /** Loads and validates the config; what the script prints goes to standard error. */
  async loadConfig(): Promise<ResolvedConfig> {
    const { loadConfig } = await import('../policy/script_host.ts');
    return loadConfig({
      path: this.configPath,
      node: this.node,
      onOutput: (text) => process.stderr.write(text),
      onProblem: (message) => process.stderr.write(`tidemark: ${message}\n`),
    });
  }

  /**
   * The config's volumes on this node, or the one that --volume names.
   * @throws TidemarkError NO_VOLUME.
   */
  chosenVolumes(config: ResolvedConfig): readonly VolumeConfig[] {
    const { volume } = this.options;
    if (volume === undefined) return config.volumes;
    const chosen = config.volumes.filter((entry) => entry.name === volume);
    if (chosen.length > 0) return chosen;
    const names = config.volumes.map((entry) => entry.name).join(', ');
    throw new TidemarkError(
      'NO_VOLUME',
      `'${volume}' is not a volume of ${config.node} (${names})`,
    );
  }

  /**
   * Connects to the daemon. A daemon leaves a note under its config's path, so that the script need not be run, nor
   * even be right, to reach it.
   * @throws TidemarkError NOT_RUNNING, CONFIG and others.
   */
  async connect(): Promise<ControlClient> {
    const noted = readSocketNote(this.configPath, this.node?.name);
    if (noted !== null) {
      try {
        return await ControlClient.connect(noted);
      } catch (error) {
        // It died, or its socket was moved: the config tells where it should be.
        if (!(error instanceof TidemarkError && error.code === 'NOT_RUNNING')) throw error;
      }
    }
    const { socketPath } = await import('../control/socket_claim.ts');
    return ControlClient.connect(socketPath(await this.loadConfig()));
  }

  /** Calls one method of the daemon; --volume goes along. Without a timeout, it waits as long as the daemon lives. */
  async call<T>(
    method: string,
    params: Record<string, unknown> = {},
    timeoutMs?: number,
  ): Promise<T> {
    const client = await this.connect();
    try {
      const { volume } = this.options;
      const all = { ...(volume === undefined ? {} : { volume }), ...params };
      return await client.call<T>(method, all, timeoutMs);
    } finally {
      client.close();
    }
  }
}
