/** What happened, one line an event: the last lines are kept for a failure, all of them printed when asked. */
import { writeSync } from 'node:fs';

const LINES_KEPT = 4000;

export class Trace {
  readonly #print: boolean;
  readonly #lines: string[] = [];
  #next = 0;
  /** Lines so far. */
  count = 0;
  /** FNV-1a over all lines: two runs of one seed must have the same. */
  hash = 0x811c9dc5;
  nowUs: () => number = () => 0;
  step: () => number = () => 0;

  constructor(print: boolean) {
    this.#print = print;
  }

  add(who: string, text: string): void {
    const line = `${String(this.step()).padStart(6)} ${(this.nowUs() / 1000).toFixed(3).padStart(11)} ${who.padEnd(7)} ${text}`;
    this.count += 1;
    let { hash } = this;
    for (let i = 0; i < line.length; i++) hash = Math.imul(hash ^ line.charCodeAt(i), 0x01000193);
    this.hash = hash >>> 0;
    if (this.#lines.length < LINES_KEPT) this.#lines.push(line);
    else this.#lines[this.#next] = line;
    this.#next = (this.#next + 1) % LINES_KEPT;
    // At once, not when the process ends: what aborts it comes last.
    if (this.#print) writeSync(1, `${line}\n`);
  }

  /** The last lines, oldest first. */
  tail(count: number): string[] {
    const all =
      this.#lines.length < LINES_KEPT
        ? this.#lines
        : [...this.#lines.slice(this.#next), ...this.#lines.slice(0, this.#next)];
    return all.slice(-count);
  }
}
