import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { drbdState } from '../../../bench/subjects/drbd.ts';

const TEXT = `version: 8.4.11 (api:1/proto:86-101)
srcversion: 0123456789ABCDEF01234567
 0: cs:SyncSource ro:Primary/Secondary ds:UpToDate/Inconsistent C r-----
    ns:20480 nr:0 dw:40 dr:21392 al:8 bm:0 lo:0 pe:2 ua:0 ap:0 ep:1 wo:f oos:184320
	[=>..................] sync'ed: 10.0% (184320/204800)K
	finish: 0:00:09 speed: 20,480 (20,480) K/sec
 1: cs:SyncTarget ro:Secondary/Primary ds:Inconsistent/UpToDate C r-----
    ns:0 nr:20480 dw:20480 dr:0 al:0 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:7

10: cs:Connected ro:Secondary/Secondary ds:UpToDate/UpToDate A r-----
    ns:0 nr:0 dw:3 dr:0 al:0 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:0
`;

test("each minor's part of /proc/drbd is read for itself", () => {
  assert.equal(drbdState(TEXT, 0), {
    connection: 'SyncSource',
    disks: 'UpToDate/Inconsistent',
    writtenBytes: 40 * 1024,
    outOfSyncBytes: 184320 * 1024,
  });
  assert.is(drbdState(TEXT, 1)?.outOfSyncBytes, 7 * 1024);
  assert.is(drbdState(TEXT, 10)?.connection, 'Connected');
  assert.is(drbdState(TEXT, 2), null);
});

test.run();
