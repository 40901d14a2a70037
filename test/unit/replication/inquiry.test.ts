import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Decision } from '../../../lib/replication/generations.ts';
import { Inquiry } from '../../../lib/replication/inquiry.ts';

const nothing: Decision = { kind: 'none', rule: 40, side: 'none', full: false, reason: '' };

test('nothing speaks against going on when every peer was heard and is behind or in step', () => {
  const inquiry = new Inquiry();
  inquiry.begin(null);
  assert.is(inquiry.answer(['beta']), undefined);
  inquiry.heard('beta', nothing, 'secondary');
  assert.is(inquiry.answer(['beta']), null);
});

test('a peer that is primary speaks against it, until it is asked again', () => {
  const inquiry = new Inquiry();
  inquiry.heard('beta', nothing, 'primary');
  assert.match(inquiry.answer(['beta'])!, /'beta' is primary/);
  inquiry.begin(null);
  inquiry.heard('beta', nothing, 'secondary');
  assert.is(inquiry.answer(['beta']), null);
});

test('what came from another primary is newer than what waits, whatever that one is now (R18)', () => {
  const inquiry = new Inquiry();
  inquiry.follows('beta');
  inquiry.begin(null);
  inquiry.heard('beta', nothing, 'secondary');
  assert.match(inquiry.answer(['beta'])!, /older than what came from 'beta'/);
});

test.run();
