/** Puts the mutants of one source file into its text, each as a choice at run time. Lines keep their numbers. */
import { type Edit, isNative, type Mutant } from './mutant.ts';

/** A place in the text, and what mutants have there. */
interface Place {
  begin: number;
  end: number;
  statement: boolean;
  choices: Array<{ name: string; replace: string }>;
  inner: Place[];
}

function escapeRegExp(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');
}

/** What is between the marks « and », or all of it. */
function marked(find: string): string {
  return /«(.*)»/s.exec(find)?.[1] ?? find;
}

function pattern(find: string): RegExp {
  const flexible = (text: string) => escapeRegExp(text).replace(/\s+/g, '\\s+');
  const whole = find.trim();
  const [before = '', rest = ''] = whole.includes('«') ? whole.split('«') : ['', `${whole}»`];
  const [inner = '', after = ''] = rest.split('»');
  return new RegExp(`${flexible(before)}(${flexible(inner)})${flexible(after)}`, 'dg');
}

function onlyMatch(name: string, what: string, text: string, find: string, where: string) {
  const matches = [...text.matchAll(pattern(find))];
  if (matches.length !== 1) {
    throw new Error(
      `mutant '${name}': ${what} matches ${matches.length} times, expected 1, in ${where}: ${find}`,
    );
  }
  const [begin, end] = matches[0]!.indices![1]!;
  return { begin, end };
}

/** A comma outside of brackets would join two arguments to one. */
function hasOpenComma(expression: string): boolean {
  let depth = 0;
  for (const sign of expression) {
    if ('([{'.includes(sign)) depth += 1;
    else if (')]}'.includes(sign)) depth -= 1;
    else if (sign === ',' && depth === 0) return true;
  }
  return false;
}

/** From the line of `within` to the line that closes its function: the first with the same indentation and '}'. */
function scopeOf(name: string, text: string, { file, within }: Edit): [number, number] {
  if (within === undefined) return [0, text.length];
  const { begin } = onlyMatch(name, 'the scope', text, within, file);
  const lineStart = text.lastIndexOf('\n', begin) + 1;
  const indentation = text.slice(lineStart, begin);
  if (indentation.trim() !== '') {
    throw new Error(`mutant '${name}': the scope does not begin a line of ${file}: ${within}`);
  }
  const close = text.indexOf(`\n${indentation}}`, begin);
  if (close < 0) throw new Error(`mutant '${name}': no end of the scope in ${file}: ${within}`);
  return [lineStart, close];
}

function placeOf(name: string, text: string, edit: Edit): Place {
  const [from, to] = scopeOf(name, text, edit);
  const where = edit.within === undefined ? edit.file : `'${edit.within}' of ${edit.file}`;
  const { begin, end } = onlyMatch(name, 'the text', text.slice(from, to), edit.find, where);
  const original = marked(edit.find).trim();
  const statement = /[;}]$/.test(original);
  const replace = edit.replace.trim().replace(/\s+/g, ' ');
  const good = statement ? replace === '' || /[;}]$/.test(replace) : /[^;}]$/.test(replace);
  if (!good) {
    throw new Error(`mutant '${name}': statements can only replace statements: ${edit.replace}`);
  }
  if (!statement && hasOpenComma(original)) {
    throw new Error(`mutant '${name}': a list is no expression: ${original}`);
  }
  return {
    begin: from + begin,
    end: from + end,
    statement,
    choices: [{ name, replace }],
    inner: [],
  };
}

/** Adds a place to a list of places that lie apart from each other. */
function insert(places: Place[], place: Place): void {
  const names = (of: Place) => of.choices.map((choice) => `'${choice.name}'`).join(', ');
  for (const [index, other] of places.entries()) {
    if (place.end <= other.begin || other.end <= place.begin) continue;
    if (place.begin === other.begin && place.end === other.end) {
      other.choices.push(...place.choices);
      return;
    }
    if (other.begin <= place.begin && place.end <= other.end) {
      insert(other.inner, place);
      return;
    }
    if (place.begin > other.begin || other.end > place.end) {
      throw new Error(`mutants ${names(other)} and ${names(place)}: their places overlap`);
    }
    places.splice(index, 1);
    insert(place.inner, other);
    insert(places, place);
    return;
  }
  places.push(place);
}

function render(text: string, begin: number, end: number, places: Place[], native: boolean) {
  let out = '';
  let at = begin;
  for (const place of [...places].sort((a, b) => a.begin - b.begin)) {
    out += text.slice(at, place.begin);
    out += choice(text, place, native);
    at = place.end;
  }
  return out + text.slice(at, end);
}

function choice(text: string, place: Place, native: boolean): string {
  let out = render(text, place.begin, place.end, place.inner, native);
  for (const { name, replace } of place.choices) {
    const chosen = native
      ? `::tidemark::sim::mutant == ${nativeName(name)}`
      : `isMutant('${name}')`;
    out = place.statement
      ? `{ if (${chosen}) { ${replace} } else { ${out} } }`
      : `(${chosen} ? (${replace}) : (${out}))`;
  }
  return out;
}

export function nativeName(name: string): string {
  return `::tidemark::sim::k_${name.replaceAll('-', '_')}`;
}

/**
 * The text of `file` with the mutants that concern it.
 * @param header goes in front of it, so that it knows of the choice; a text that no mutant concerns is returned as it is.
 */
export function rewrite(
  file: string,
  text: string,
  mutants: readonly Mutant[],
  header: string,
): string {
  const places: Place[] = [];
  for (const { name, edits } of mutants) {
    for (const edit of edits) if (edit.file === file) insert(places, placeOf(name, text, edit));
  }
  if (places.length === 0) return text;
  return header + render(text, 0, text.length, places, isNative(file));
}
