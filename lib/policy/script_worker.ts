/**
 * The policy worker's entry: runs the user's config script, validates it, and calls its policy functions. It may hang
 * or die at any point; script_host.ts replaces it then.
 */

import { parentPort, workerData } from 'node:worker_threads';
import { TidemarkError } from '../binding/errors.ts';
import { ConfigError, formatProblem } from '../config/problems.ts';
import { type ResolveResult, resolveConfig } from '../config/resolve.ts';
import { check, flushIntervalSchema, selectPeersSchema, windowSchema } from '../config/schema.ts';
import { messageOf, runScript, type Script } from '../config/script.ts';
import type { Volume } from '../config/types.ts';
import { functionPlace } from './function_place.ts';
import type { CallRequest, PolicyName, ScriptSource, WorkerMessage } from './messages.ts';

const port = parentPort!;
const post = (message: WorkerMessage) => port.postMessage(message);

interface Loaded extends ResolveResult {
  script: Script;
  /** 'volume policy' -> place of the function. */
  places: Map<string, string>;
}

const POLICY_NAMES: readonly PolicyName[] = ['asyncWindow', 'flushInterval', 'selectPeers'];

function places(script: Script, volumes: readonly Volume[]): Map<string, string> {
  const result = new Map<string, string>();
  for (const volume of volumes) {
    for (const policy of POLICY_NAMES) {
      if (typeof volume[policy] !== 'function') continue;
      const place = functionPlace(volume[policy]);
      if (place) {
        const text = script.placeAt(place.file, place.line, place.column);
        result.set(`${volume.name} ${policy}`, text);
      }
    }
  }
  return result;
}

async function load(source: ScriptSource): Promise<Loaded> {
  const script = await runScript(source.path);
  try {
    const result = resolveConfig(script.exported, source);
    return { ...result, script, places: places(script, result.scripts) };
  } catch (error) {
    if (error instanceof TidemarkError) throw error;
    // The script's own code ran: node(), or a getter.
    const place = script.placeOf(error) || source.path;
    throw new TidemarkError('CONFIG_SCRIPT', `${place}: ${messageOf(error)}`, { cause: error });
  }
}

/** The validated answer, or what is wrong with it. */
function checkAnswer(
  { config }: Loaded,
  request: CallRequest,
  answer: unknown,
): { value: unknown } | { message: string } {
  const schemas = {
    asyncWindow: windowSchema,
    flushInterval: flushIntervalSchema,
    selectPeers: selectPeersSchema,
  };
  const result = check<unknown>(schemas[request.policy], answer, []);
  if ('problems' in result) return { message: result.problems.map(formatProblem).join('; ') };
  if (request.policy !== 'selectPeers') return { value: result.data };
  const volume = config.volumes.find((entry) => entry.name === request.volume);
  const known = volume?.peers.map((peer) => peer.name) ?? [];
  // One script serves all nodes, so that it may name this node too.
  const names = (result.data as string[]).filter((name) => name !== config.node);
  const unknown = names.find((name) => !known.includes(name));
  if (unknown === undefined) return { value: names };
  return { message: `'${unknown}' is not a peer of ${config.node} (${known.join(', ')})` };
}

async function call(loaded: Loaded, request: CallRequest): Promise<void> {
  const { id, volume, policy } = request;
  const place = loaded.places.get(`${volume} ${policy}`) ?? loaded.config.path;
  const object = loaded.scripts.find((entry) => entry.name === volume);
  const fn = object?.[policy];
  if (typeof fn !== 'function') {
    post({ kind: 'invalid', id, place, message: `${policy} of ${volume} is no longer a function` });
    return;
  }
  try {
    const answer = await (fn as (facts: unknown) => unknown).call(object, request.facts);
    const checked = checkAnswer(loaded, request, answer);
    if ('value' in checked) post({ kind: 'answer', id, value: checked.value });
    else post({ kind: 'invalid', id, place, message: checked.message });
  } catch (error) {
    const where = loaded.script.placeOf(error) || place;
    post({ kind: 'exception', id, place: where, message: describe(error) });
  }
}

function describe(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${messageOf(error)}` : messageOf(error);
}

const source = workerData as ScriptSource;
try {
  const loaded = await load(source);
  port.on('message', async (request: CallRequest) => {
    await call(loaded, request);
    post({ kind: 'buffers', bytes: process.memoryUsage().arrayBuffers });
  });
  post({ kind: 'loaded', config: loaded.config });
} catch (error) {
  const known = error instanceof TidemarkError;
  post({
    kind: 'failed',
    code: known ? error.code : 'CONFIG_SCRIPT',
    message: known ? error.message : `${source.path}: ${describe(error)}`,
    path: source.path,
    problems: error instanceof ConfigError ? error.problems : null,
  });
}
