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

const SECOND = { begin_ns: 0n, end_ns: 1_000_000_000n, amount: 1000, unit: 'request' } as const;

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
  const samples = Array.from({ length: 400 }, () => perfSamples(SCRIPT)).flat();
  const text = profileText(samples, SECOND, 2);
  // 2 s of processors, 1000 requests, a fifth of the samples each: 400 us.
  for (const group of ['idle', 'fio', 'the rest of user space'])
    assert.match(text, new RegExp(`^    400\\.00 us  20\\.0 %  ${group}$`, 'm'));
  assert.match(text, /^ {4}800\.00 us {2}40\.0 % {2}copies and new pages$/m);
  assert.match(text, /^ {3}1200\.00 us {2}60\.0 % {2}tidemark\/bench$/m);
});

test('what has a specific name is told by it, and not by a general word in it', () => {
  const groups: Record<string, string[]> = {
    ublk: ['ublk_ch_uring_cmd', '__ublk_do_req'],
    'RAM disk and block layer': [
      'brd_submit_bio',
      'blk_mq_sched_bypass_insert',
      '__dd_dispatch_request',
    ],
    'TCP, sockets and loopback': ['tcp_write_timer', 'sock_poll', 'handle_softirqs'],
    io_uring: ['io_req_task_work_add'],
    'page cache and memory': ['filemap_add_folio', 'gup_fast_fallback', 'kmem_cache_alloc_noprof'],
    'wake-ups, switches, and what interrupts had to wait for': [
      'finish_task_switch.isra.0',
      '_raw_spin_unlock_irqrestore',
      'enqueue_task_fair',
    ],
    'system calls, files and their checks': ['do_syscall_64', 'vfs_writev'],
  };
  for (const [group, symbols] of Object.entries(groups)) {
    for (const symbol of symbols) {
      const sample = { comm: 'tidemark/bench', symbol, object: '[kernel.kallsyms]' };
      const text = profileText(Array(1994).fill(sample), SECOND, 2);
      assert.match(
        text,
        new RegExp(`What it was, for each request:\\n.* 100\\.0 %  ${group}\\n`),
        symbol,
      );
    }
  }
});

test('memory without a file is not the kernel', () => {
  const sample = { comm: 'tidemark/bench', symbol: 'x', object: '[unknown]' };
  assert.match(
    profileText(Array(1994).fill(sample), SECOND, 2),
    /100\.0 % {2}the rest of user space$/m,
  );
});

test('a profile of less than half of the samples that were due is an error', () => {
  for (const samples of [[], perfSamples(SCRIPT)])
    assert.throws(() => profileText(samples, SECOND, 2), /samples of 1994 while the work was done/);
});

test.run();
