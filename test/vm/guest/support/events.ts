// What guest and host tell each other about a run: one JSON object a line in the results share, so that
// the host knows what had happened also when the machine dies.

export const eventsFile = 'events.jsonl';

export interface ScenarioResult {
  name: string;
  ok: boolean;
  elapsedMs: number;
  error?: string;
}

export type RunEvent =
  | { event: 'plan'; names: string[] }
  | { event: 'start'; name: string }
  | ({ event: 'result' } & ScenarioResult)
  | { event: 'end' };

/** Every planned scenario with its result; what never ended failed. */
export function resultsOf(events: readonly RunEvent[], whyMissing: string): ScenarioResult[] {
  const plan = events.find((entry) => entry.event === 'plan')?.names ?? [];
  return plan.map((name) => {
    const result = events.find((entry) => entry.event === 'result' && entry.name === name);
    if (result?.event === 'result') {
      const { event: _, ...fields } = result;
      return fields;
    }
    const started = events.some((entry) => entry.event === 'start' && entry.name === name);
    const error = `${started ? 'did not end' : 'was not run'}: ${whyMissing}`;
    return { name, ok: false, elapsedMs: 0, error };
  });
}

export function parseEvents(text: string): RunEvent[] {
  const events: RunEvent[] = [];
  for (const line of text.split('\n')) {
    try {
      if (line) events.push(JSON.parse(line) as RunEvent);
    } catch {
      break; // The last line may be torn when the machine died.
    }
  }
  return events;
}

/** A result as a TAP line, an error below it as comments. */
export function tapLine(result: ScenarioResult, index: number): string {
  const seconds = (result.elapsedMs / 1000).toFixed(1);
  const line = `${result.ok ? 'ok' : 'not ok'} ${index} - ${result.name} (${seconds} s)`;
  const error = result.error?.split('\n').map((text) => `  # ${text}`) ?? [];
  return [line, ...error, ''].join('\n');
}
