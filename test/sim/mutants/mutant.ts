/**
 * Mutants: deliberate bugs that the simulator has to catch. Each is one or more replacements of text in the product's sources; the build
 * of the simulator (test/sim/build.ts) turns each place into a choice at run time, so that one build holds all of them and
 * behaves as shipped while none is chosen. The sources themselves know nothing of it.
 *
 * What must hold, and is an error that names the mutant otherwise: a pattern matches exactly once within its scope; names are unique; rules are
 * R1..R18; two places are equal, apart, or one lies inside the other.
 */

import type { ThemeName } from '../theme_names.ts';

export const RULES = Array.from({ length: 18 }, (_, index) => `R${index + 1}`);

/** One place that a mutant changes. */
export interface Edit {
  /** From the top of the repository: csrc/core/*, lib/**; test/sim/native/* for what the simulator has in place of csrc/engine. */
  file: string;
  /** A line of the function that holds the place, from its first word; the search ends with the function. Without: the whole file. */
  within?: string;
  /**
   * What is replaced, or, where a part is marked «so», that part; white space matches any white space. Ends with ';' or '}' for statements,
   * otherwise it is an expression. No declaration that something outside needs: it moves into a block of its own. In TypeScript,
   * nothing that is evaluated when the module is loaded: nothing is chosen yet then.
   */
  find: string;
  /** What stands there in the mutant, statements or an expression as `find`; '' for no statement. */
  replace: string;
}

export interface Mutant {
  /** Words with dashes. */
  name: string;
  /** The rules of DESIGN that it breaks, the first one above all; none: only that every request completes exactly once. */
  rules: string[];
  /** Where the idea is from. */
  source: string;
  /** What is wrong with it, in one sentence. */
  about: string;
  /** What is lost by it: what the simulator is expected to see. */
  symptom: string;
  /** Only seeds of this theme are tried, as its situation is rare in others; none: all. */
  theme?: ThemeName;
  edits: Edit[];
}

/** Sources of ideas. */
export const PRIOR_ART = 'losses that others shipped';
export const DESIGN = 'the rule turned round';

/** Makes sure that the list can be used. @throws Error that names the mutant. */
export function checkMutants(mutants: readonly Mutant[]): void {
  const names = new Set<string>();
  for (const { name, rules, edits } of mutants) {
    if (!/^[a-z0-9]+(-[a-z0-9]+)*$/.test(name)) {
      throw new Error(`mutant '${name}': a name is lower-case words with dashes`);
    }
    if (names.has(name)) throw new Error(`mutant '${name}': there are two of this name`);
    names.add(name);
    for (const rule of rules) {
      if (!RULES.includes(rule)) {
        throw new Error(`mutant '${name}': unknown rule '${rule}': expected R1..R${RULES.length}`);
      }
    }
    if (edits.length === 0) throw new Error(`mutant '${name}': changes nothing`);
  }
}

export const isNative = (file: string) => /\.(cc|h)$/.test(file);
