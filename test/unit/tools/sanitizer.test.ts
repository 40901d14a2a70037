import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { reportsIn, withoutForeignLeaks } from '../../tools/sanitizer.ts';

const NODES_OWN = `Direct leak of 512 byte(s) in 2 object(s) allocated from:
    #0 0x7f90ecab7ffd in __interceptor_posix_memalign ../src/libsanitizer/asan/asan_malloc_linux.cpp:145
    #1 0x116728d in v8::internal::MemoryChunk::AllocateSlotSet(v8::internal::SlotSet**) (/usr/bin/node+0x116728d)
    #2 0x7f90ec4a71f4 in start_thread nptl/pthread_create.c:442`;

const OURS_WITH_LINES = `Direct leak of 24 byte(s) in 1 object(s) allocated from:
    #0 0x7f90ecab9628 in operator new(unsigned long) ../src/libsanitizer/asan/asan_new_delete.cpp:95
    #1 0x7f90e81c3fea in tidemark::addon::Session::open(napi_env__*) ../../csrc/addon/session.cc:91
    #2 0xc8d2f4 in v8impl::FunctionCallbackWrapper::Invoke(v8::FunctionCallbackInfo<v8::Value> const&) (/usr/bin/node+0xc8d2f4)`;

const OURS_BELOW_THE_LIBRARY = `Indirect leak of 32 byte(s) in 1 object(s) allocated from:
    #0 0x7f90ecab9628 in operator new(unsigned long) ../src/libsanitizer/asan/asan_new_delete.cpp:95
    #1 0x7f90e81c3fea  (/checkout/build/address/build/Release/tidemark.node+0x12345)
    #2 0x18cfd1b in Builtins_InterpreterEntryTrampoline (/usr/bin/node+0x18cfd1b)`;

function leakReport(...leaks: string[]): string {
  return [
    '\n=================================================================',
    '==node==4359==ERROR: LeakSanitizer: detected memory leaks\n',
    leaks.join('\n\n'),
    '\nSUMMARY: AddressSanitizer: 568 byte(s) leaked in 4 allocation(s).\n',
  ].join('\n');
}

const NODES_FOR_US = `Direct leak of 104 byte(s) in 13 object(s) allocated from:
    #0 0x7ff66eeb94c8 in operator new(unsigned long) ../src/libsanitizer/asan/asan_new_delete.cpp:95
    #1 0xc53259 in napi_create_promise (/usr/bin/node+0xc53259)
    #2 0x7ff64849cca2 in tidemark::addon::Session::call() ../../csrc/addon/session.cc:146`;

const OVERFLOW = `==node==71==ERROR: AddressSanitizer: heap-buffer-overflow on address 0x602000000011
    #0 0x116728d in node::Start(int, char**) (/usr/bin/node+0x116728d)
`;

test('leaks of Node are left out, and what our code asked for stays', () => {
  assert.is(withoutForeignLeaks(leakReport(NODES_FOR_US)), '');
  assert.is(withoutForeignLeaks(leakReport(NODES_OWN)), '');
  assert.is(
    withoutForeignLeaks(leakReport(NODES_OWN, OURS_WITH_LINES, NODES_OWN, OURS_BELOW_THE_LIBRARY)),
    `${OURS_WITH_LINES}\n\n${OURS_BELOW_THE_LIBRARY}`,
  );
});

test('every other report counts, whatever is on its stack', () => {
  assert.is(withoutForeignLeaks(OVERFLOW), OVERFLOW);
});

test('reports of Node and of our programs are read, those of other programs are not', () => {
  const folder = mkdtempSync(join(tmpdir(), 'tidemark-reports-'));
  try {
    assert.equal(reportsIn(folder), []);
    writeFileSync(join(folder, 'report.node.10'), leakReport(NODES_OWN));
    writeFileSync(join(folder, 'report.fio.11'), OVERFLOW);
    assert.equal(reportsIn(folder), []);
    writeFileSync(join(folder, 'report.node.12'), OVERFLOW);
    writeFileSync(join(folder, 'report.tidemark-unit.13'), leakReport(OURS_WITH_LINES));
    assert.equal(reportsIn(folder), [OVERFLOW, OURS_WITH_LINES]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test('suppressions of data races name code of Node alone, and each group says why', () => {
  const groups = readFileSync('test/sanitizers/thread.supp', 'utf8').trim().split('\n\n').slice(1);
  assert.ok(groups.length > 0);
  for (const group of groups) {
    const lines = group.split('\n');
    assert.match(lines[0]!, /^# \w/);
    for (const line of lines.filter((each) => !each.startsWith('#'))) {
      assert.match(line, /^race:(v8::(base|platform|internal)::|heap::base::|node::|uv_)[\w*]/);
    }
  }
});

test.run();
