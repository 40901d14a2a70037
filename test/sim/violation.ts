/** What must hold does not. */
export class Violation extends Error {
  /** Names the check, for counting. */
  readonly check: string;

  constructor(check: string, message: string) {
    super(`${check}: ${message}`);
    this.name = 'Violation';
    this.check = check;
  }
}
