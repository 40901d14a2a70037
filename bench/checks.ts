/** Figures against their targets. One that was not measured has failed. */
export class Checks {
  private passed = 0;
  private failed = 0;

  atMost(what: string, value: number | undefined, limit: number): void {
    const good = value !== undefined && value <= limit;
    if (good) ++this.passed;
    else ++this.failed;
    const found = value === undefined ? 'not measured' : String(Number(value.toFixed(3)));
    console.log(`${good ? 'ok    ' : 'FAILED'} ${what}: ${found}, at most ${limit}`);
  }

  /** Prints the last line, 'N passed, N failed'; true when all is well. */
  tell(): boolean {
    console.log(`${this.passed} passed, ${this.failed} failed`);
    return this.failed === 0;
  }
}
