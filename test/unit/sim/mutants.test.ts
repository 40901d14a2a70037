import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { chooseMutant, isMutant } from '../../sim/mutants/chosen.ts';
import { generate } from '../../sim/mutants/generate.ts';
import { MUTANTS } from '../../sim/mutants/list.ts';
import { checkMutants, type Edit, isNative, type Mutant, RULES } from '../../sim/mutants/mutant.ts';
import { rewrite } from '../../sim/mutants/rewrite.ts';

const TOP = fileURLToPath(new URL('../../..', import.meta.url));
const FILE = 'lib/sample.ts';

function mutant(name: string, find: string, replace: string, more: Partial<Edit> = {}): Mutant {
  const edits = [{ file: FILE, find, replace, ...more }];
  return { name, rules: ['R1'], source: '', about: '', symptom: '', edits };
}

test('every mutant fits the sources, each of its places once', () => {
  const files = generate(TOP, MUTANTS);
  const registry = files.get('csrc/sim_mutants.h')!;
  for (const { name, edits } of MUTANTS) {
    for (const { file } of edits) {
      const text = files.get(file)!;
      const choice = isNative(file)
        ? new RegExp(`sim::mutant == ::tidemark::sim::k_${name.replaceAll('-', '_')}\\b`)
        : new RegExp(`isMutant\\('${name}'\\)`);
      assert.match(text, choice, `${name} is chosen in ${file}`);
    }
    const concerned = edits.some(({ file }) => isNative(file));
    assert.is(registry.includes(`"${name}"`), concerned, `${name} in sim_mutants.h`);
  }
});

test('every rule has a mutant that breaks it', () => {
  for (const rule of RULES) {
    assert.ok(
      MUTANTS.some((each) => each.rules.includes(rule)),
      rule,
    );
  }
});

test('every mutant says what is wrong and what is lost by it', () => {
  for (const { name, about, symptom, source } of MUTANTS) {
    assert.match(about, /^[A-Z].*\.$/, name);
    assert.match(symptom, /\w/, name);
    assert.match(source, /\w/, name);
  }
});

test('a place becomes a choice; without a choice it is what it was', () => {
  const source = `
function sample(a, b) {
  let sum = 0;
  sum += a;
  if (a > b) sum += b;
  return sum;
}`;
  const mutants = [
    mutant('no-a', 'sum += a;', ''),
    mutant('twice-a', 'sum  +=\n a;', 'sum += 2 * a;'),
    mutant('always', 'if («a > b») sum', 'true', { within: 'function sample(a, b)' }),
    mutant('never', 'if (a > b) sum += b;', ''),
  ];
  const run = (name: string) => {
    const text = rewrite(FILE, source, mutants, '');
    const isChosen = (each: string) => each === name;
    return new Function('isMutant', `${text}; return [sample(1, 5), sample(7, 5)];`)(isChosen);
  };
  assert.equal(run(''), [1, 12]);
  assert.equal(run('no-a'), [0, 5]);
  assert.equal(run('twice-a'), [2, 19]);
  assert.equal(run('always'), [6, 12]);
  assert.equal(run('never'), [1, 7]);
});

test('lines keep their numbers, and files of no concern stay as they are', () => {
  const source = 'one;\ntwo;\n\nthree;\n';
  const mutants = [mutant('several-lines', 'two;', 'a;\nb;\nc;')];
  const text = rewrite(FILE, source, mutants, 'import x; ');
  assert.match(text, /^import x; one;\n/);
  assert.is(text.split('\n').indexOf('three;'), source.split('\n').indexOf('three;'));
  assert.is(rewrite('lib/other.ts', source, mutants, 'import x; '), source);
});

test('a pattern that does not match exactly once is an error that names the mutant', () => {
  const source = 'a = 1;\nb = 1;\n';
  const fits = (find: string, more: Partial<Edit> = {}) =>
    rewrite(FILE, source, [mutant('some-name', find, '2', more)], '');
  assert.throws(
    () => fits('c'),
    /'some-name': the text matches 0 times, expected 1, in lib\/sample/,
  );
  assert.throws(() => fits('1'), /'some-name': the text matches 2 times/);
  assert.throws(() => fits('a', { within: 'function' }), /'some-name': the scope matches 0 times/);
  assert.match(fits('b = «1»'), "b = (isMutant('some-name') ? (2) : (1));");
});

test('what cannot be a choice is refused', () => {
  const fits = (mutants: Mutant[]) => rewrite(FILE, 'f(a, b, c);\n', mutants, '');
  assert.throws(() => fits([mutant('name', 'a, b', 'x')]), /'name': a list is no expression/);
  assert.throws(() => fits([mutant('name', 'f(a, b, c);', 'x')]), /'name': statements can only/);
  assert.throws(() => fits([mutant('name', 'a', 'x;')]), /'name': statements can only/);
  assert.throws(
    () => fits([mutant('one', 'f(a, b, c)', 'x'), mutant('two', ', c);', 'y;')]),
    /'one' and 'two': their places overlap/,
  );
});

test('names and rules are checked', () => {
  const good = mutant('a-name', 'a', 'b');
  checkMutants([good]);
  assert.throws(() => checkMutants([good, good]), /'a-name': there are two of this name/);
  assert.throws(() => checkMutants([{ ...good, rules: ['R19'] }]), /'a-name': unknown rule 'R19'/);
  assert.throws(() => checkMutants([{ ...good, name: 'A name' }]), /'A name': a name is/);
  assert.throws(() => checkMutants([{ ...good, edits: [] }]), /'a-name': changes nothing/);
  const nowhere = mutant('a-name', 'a', 'b', { file: 'lib/nowhere.ts' });
  assert.throws(() => generate(TOP, [nowhere]), /'a-name': no file lib\/nowhere.ts/);
});

test('one is chosen at a time, by a name of the list', () => {
  const name = MUTANTS[0]!.name;
  assert.not(isMutant(name));
  chooseMutant(name);
  assert.ok(isMutant(name));
  chooseMutant('');
  assert.not(isMutant(name));
  assert.throws(() => chooseMutant('no-such-mutant'), /no mutant 'no-such-mutant'/);
});

test.run();
