import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  checkProof,
  isLoopbackAddress,
  linkIncarnation,
  makeProof,
  type Transcript,
} from '../../../lib/replication/auth.ts';

const greeting = (node: string, nonce: string) => ({
  versionMin: 1,
  versionMax: 1,
  node,
  nodeId: node.padEnd(32, '0').slice(0, 32),
  nonce: nonce.repeat(64),
});
const transcript: Transcript = {
  version: 1,
  volume: 'r0',
  dialer: greeting('alpha', 'a'),
  listener: greeting('beta', 'b'),
};

test('the right proof fits, from both ends', () => {
  for (const end of ['dialer', 'listener'] as const) {
    assert.ok(checkProof('secret', end, transcript, makeProof('secret', end, transcript)));
  }
});

test('another secret does not', () => {
  assert.not.ok(
    checkProof('secret', 'dialer', transcript, makeProof('Secret', 'dialer', transcript)),
  );
});

test('a reflected proof does not: the direction is in it', () => {
  const proof = makeProof('secret', 'dialer', transcript);
  assert.not.ok(checkProof('secret', 'listener', transcript, proof));
});

test('a proof of an earlier connection does not, nor one with any field changed', () => {
  const proof = makeProof('secret', 'dialer', transcript);
  const others: Transcript[] = [
    { ...transcript, listener: greeting('beta', 'c') },
    { ...transcript, dialer: greeting('alpha', 'c') },
    { ...transcript, dialer: greeting('alpine', 'a') },
    { ...transcript, volume: 'r1' },
    { ...transcript, version: 2 },
    { ...transcript, dialer: { ...transcript.dialer, nodeId: 'f'.repeat(32) } },
    { ...transcript, dialer: { ...transcript.dialer, versionMax: 9 } },
  ];
  for (const other of others) assert.not.ok(checkProof('secret', 'dialer', other, proof));
});

test('a proof of another length is wrong, not an error', () => {
  for (const proof of ['', 'zz', 'ab', 'ab'.repeat(64)]) {
    assert.is(checkProof('secret', 'dialer', transcript, proof), false);
  }
});

test('fields cannot run into each other', () => {
  const one = { ...transcript, volume: 'a","b' };
  const two = { ...transcript, volume: 'a', dialer: { ...transcript.dialer, node: 'b' } };
  assert.is.not(makeProof('s', 'dialer', one), makeProof('s', 'dialer', two));
});

test('the incarnation is the same for the same nonces, another for others, and never 0', () => {
  const incarnation = linkIncarnation(transcript);
  assert.is(linkIncarnation({ ...transcript }), incarnation);
  assert.is.not(linkIncarnation({ ...transcript, dialer: greeting('alpha', 'c') }), incarnation);
  assert.ok(incarnation > 0 && incarnation <= 0xffff_ffff);
});

test('loopback is 127/8 and ::1, in every notation, and nothing else', () => {
  for (const address of ['127.0.0.1', '127.8.9.1', '::1', '::ffff:127.0.0.1', '::FFFF:127.0.0.1']) {
    assert.ok(isLoopbackAddress(address), address);
  }
  const others = [
    '10.0.0.1',
    '128.0.0.1',
    '::',
    '::2',
    'fe80::1',
    '::ffff:10.0.0.1',
    '',
    undefined,
  ];
  for (const address of [...others, '127.example.org']) {
    assert.not.ok(isLoopbackAddress(address), String(address));
  }
});

test.run();
