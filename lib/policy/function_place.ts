/** Where a function stands in the user's script: for answers that are wrong without an exception. */

import { Session } from 'node:inspector';
import { fileURLToPath } from 'node:url';

interface Place {
  file: string;
  /** Both from 1. */
  line: number;
  column: number;
}

const HOLDER = '__tidemarkFunction';

/** Asks this thread's own inspector; null when that is not possible. Takes milliseconds: once per function. */
export function functionPlace(fn: unknown): Place | null {
  const session = new Session();
  const holder = globalThis as Record<string, unknown>;
  const urls = new Map<string, string>();
  let place: Place | null = null;
  try {
    session.connect();
    session.on('Debugger.scriptParsed', ({ params }) => urls.set(params.scriptId, params.url));
    session.post('Debugger.enable');
    holder[HOLDER] = fn;
    session.post('Runtime.evaluate', { expression: `globalThis.${HOLDER}` }, (error, evaluated) => {
      const objectId = evaluated?.result.objectId;
      if (error || objectId === undefined) return;
      session.post('Runtime.getProperties', { objectId, ownProperties: true }, (failure, found) => {
        if (failure) return;
        const entry = found.internalProperties?.find((p) => p.name === '[[FunctionLocation]]');
        const location = entry?.value?.value as
          | { scriptId: string; lineNumber: number; columnNumber: number }
          | undefined;
        const url = location && urls.get(location.scriptId);
        if (!location || !url) return;
        const file = url.startsWith('file://') ? fileURLToPath(url) : url;
        place = { file, line: location.lineNumber + 1, column: location.columnNumber + 1 };
      });
    });
  } catch {
    // Without an inspector (a Node built so) the script's path has to do.
  } finally {
    delete holder[HOLDER];
    session.disconnect();
  }
  return place;
}
