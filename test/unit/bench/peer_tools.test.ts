import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { TOOLS_PROBLEM_VARIABLE, TOOLS_VARIABLE, tool } from '../../../bench/peer_tools.ts';

test.after.each(() => {
  delete process.env[TOOLS_VARIABLE];
  delete process.env[TOOLS_PROBLEM_VARIABLE];
});

test('a tool that was not unpacked is named, with the folder', () => {
  process.env[TOOLS_VARIABLE] = '/nowhere';
  assert.throws(() => tool('mdadm'), /mdadm is not below TIDEMARK_BENCH_TOOLS='\/nowhere'/);
});

test('why no tool was unpacked is told', () => {
  process.env[TOOLS_PROBLEM_VARIABLE] = 'apt-get download: exit status 100';
  assert.throws(() => tool('drbdmeta'), /drbdmeta could not be had: apt-get download: exit status/);
});

test.run();
