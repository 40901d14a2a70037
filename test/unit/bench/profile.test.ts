import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { perfSamples, profileText } from '../../../bench/profile.ts';

const SCRIPT = `
            fio  1234  7f00deadbeef td_io_queue+0x1c (/usr/bin/fio)
 tidemark/bench   77  ffffffff81000000 copy_user_generic ([kernel.kallsyms])
 tidemark/bench   77  ffffffffc0000010 ublk_copy_user_pages ([ublk_drv])
 tidemark/bench   77  7f0000001000 tidemark::core::Volume::handle(tidemark::core::Request const&) (/x y/tidemark.node)
         swapper     0  ffffffff81000001 poll_idle ([kernel.kallsyms])
 IPv6: a line that is no sample
`;

test('lines of perf are samples, with names that have spaces; others are left out', () => {
  assert.equal(perfSamples(SCRIPT).slice(0, 4), [
    { comm: 'fio', symbol: 'td_io_queue', object: '/usr/bin/fio' },
    { comm: 'tidemark/bench', symbol: 'copy_user_generic', object: '[kernel.kallsyms]' },
    { comm: 'tidemark/bench', symbol: 'ublk_copy_user_pages', object: '[ublk_drv]' },
    {
      comm: 'tidemark/bench',
      symbol: 'tidemark::core::Volume::handle(tidemark::core::Request const&)',
      object: '/x y/tidemark.node',
    },
  ]);
  assert.is(perfSamples(SCRIPT).length, 5);
});

test("all processors' time is shared out over the requests by the samples, and each sample counts once", () => {
  const window = { begin_ns: 0n, end_ns: 1_000_000_000n, amount: 1000, unit: 'request' } as const;
  const text = profileText(perfSamples(SCRIPT), window, 2);
  // 2 s of processors, 1000 requests, 5 samples: 400 us each.
  for (const group of ['idle', 'fio', 'the rest of user space'])
    assert.match(text, new RegExp(`^    400\\.00 us  20\\.0 %  ${group}$`, 'm'));
  assert.match(text, /^ {4}800\.00 us {2}40\.0 % {2}copies and new pages$/m);
  assert.match(text, /^ {3}1200\.00 us {2}60\.0 % {2}tidemark\/bench$/m);
});

test('a work without a sample is an error, and no empty profile', () => {
  const window = { begin_ns: 0n, end_ns: 1n, amount: 1, unit: 'MiB' } as const;
  assert.throws(() => profileText([], window, 2), /perf took no samples/);
});

test.run();
