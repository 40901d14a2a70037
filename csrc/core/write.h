// A write on its way through a volume: an application's, a peer's, or a peer's resync. Reads of the
// application use it too, for their I/O.
//
// Path of a write (each step may wait):
//   lock the whole range (R5) -> for each piece: read-modify-write if it is not aligned -> activity
//   log (R1) -> room towards the peer (application)
//   -> marked, sent and submitted in one step (R8) -> local I/O done -> next piece -> all
//   acknowledged -> generation gate (R7) -> completed.
// A piece is what fits one frame and a quarter of the log.
#pragma once

#include <cstdint>

#include "core/host.h"
#include "core/range_lock.h"
#include "core/types.h"

namespace tidemark {

struct VolumeImpl;

enum class Origin : uint8_t { kApplication, kReplicated, kResync };

struct Write {
  VolumeImpl* volume = nullptr;
  Origin origin = Origin::kApplication;
  Request* request = nullptr;  // kApplication
  IoKind kind = IoKind::kWrite;
  bool fua = false;
  bool no_unmap = false;
  ByteRange range;          // what was asked for
  uint8_t* data = nullptr;  // range.length bytes, for kWrite
  size_t data_bytes = 0;    // of a buffer of ours behind `data` (peers' writes), 0: the request's

  ByteRange piece;            // the part under way, inside `range`
  ByteRange aligned;          // the same, rounded out to the backing's logical block
  uint8_t* bounce = nullptr;  // aligned.length bytes, when `piece` is not aligned
  IoKind piece_kind = IoKind::kWrite;
  bool in_log = false;           // holds a local reference on the extents of `aligned`
  bool in_log_for_peer = false;  // and one for the peer, not yet passed on to the transfer log
  RangeLock lock;
  Io io;

  bool local_done = false;    // every piece is on the local disk (or failed)
  uint32_t acks_pending = 0;  // pieces that the peer must acknowledge before completion
  uint32_t epoch_wait = 0;    // the epoch that must be durable there before completion; 0 none
  uint32_t link_serial = 0;   // the link that acks_pending and epoch_wait belong to
  int32_t error = 0;
  int32_t swallowed = 0;  // failed at the local disk while that is let go of; counts if it is kept
  bool remote = false;    // part of it went to the peer alone: the lock is held until the end
  bool restart = false;   // the link that carried it is gone: all of it is sent again
  bool ended = false;

  // kReplicated, kResync
  uint64_t sequence = 0;
  uint32_t epoch = 0;
  bool acknowledge = false;

  Write* next_free = nullptr;
};

}  // namespace tidemark
