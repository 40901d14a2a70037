// The path of a write, a read and a flush through the volume; write.h tells the steps.
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "core/volume_impl.h"

namespace tidemark {

namespace {

constexpr uint64_t round_down(uint64_t value, uint64_t unit) { return value / unit * unit; }
constexpr uint64_t round_up(uint64_t value, uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

uint8_t* allocate_bounce(uint64_t bytes) {
  uint8_t* buffer =
      static_cast<uint8_t*>(std::aligned_alloc(kBlockSize, round_up(bytes, kBlockSize)));
  check(buffer != nullptr, "out of memory for a bounce buffer");
  return buffer;
}

Write* write_of(void* context) { return static_cast<Write*>(context); }

}  // namespace

Write* VolumeImpl::new_write() {
  Write* write = free_writes;
  if (write == nullptr) {
    write_pool.push_back(std::make_unique<Write>());
    write = write_pool.back().get();
  } else {
    free_writes = write->next_free;
    *write = Write{};
  }
  write->volume = this;
  ++writes_active;
  return write;
}

void VolumeImpl::free_write(Write* write) {
  if (write->data_bytes != 0) host.buffer_put(write->data, write->data_bytes);
  std::free(write->bounce);
  write->bounce = nullptr;
  write->next_free = free_writes;
  free_writes = write;
  --writes_active;
}

ByteRange VolumeImpl::align_out(ByteRange range) const {
  const uint64_t begin = round_down(range.offset, block_bytes);
  const uint64_t end = round_up(range.end(), block_bytes);
  return {begin, end - begin};
}

void VolumeImpl::extents_of(ByteRange range, uint32_t* first, uint32_t* last) const {
  *first = static_cast<uint32_t>(range.offset / extent_bytes());
  *last = static_cast<uint32_t>((range.end() - 1) / extent_bytes());
}

// R1: a node that tracks nobody but the primary it follows may skip the log: that primary's own log
// and transfer log cover what it sent.
bool VolumeImpl::use_log(const Write* write) const {
  if (write->origin == Origin::kApplication) return true;
  for (uint32_t slot = 0; slot < kMaxPeerSlots; ++slot) {
    const bool follows = slot == link.slot && !link.peer_detached;
    if (!follows && (sb().slots[slot].flags & kSlotInUse) != 0) return true;
  }
  return false;
}

void VolumeImpl::mark_range(uint32_t slot, ByteRange range) {
  if (slot == kNoSlot || attachment->maps[slot] == nullptr) return;
  attachment->maps[slot]->mark(range);
  if (slot == link.slot) void_tasks(range);
}

void VolumeImpl::mark_absent(ByteRange range) {
  for (uint32_t slot = 0; slot < kMaxPeerSlots; ++slot) {
    const bool follows = slot == link.slot && !link.peer_detached;
    if ((sb().slots[slot].flags & kSlotInUse) != 0 && !follows) mark_range(slot, range);
  }
}

bool VolumeImpl::writes_held() const {
  return link.state == Connection::kPrepared || role_changing || detaching() || waits_for_peer();
}

// --- reads ---

void VolumeImpl::start_read(Request* request) {
  Write* read = new_write();
  read->request = request;
  read->kind = IoKind::kRead;
  read->range = {request->offset, request->length};
  read->aligned = align_out(read->range);
  const bool aligned =
      read->aligned.offset == read->range.offset && read->aligned.length == read->range.length;
  if (!aligned) read->bounce = allocate_bounce(read->aligned.length);
  read->io.kind = IoKind::kRead;
  read->io.offset = read->aligned.offset;
  read->io.length = read->aligned.length;
  read->io.buffer = aligned ? request->buffer : read->bounce;
  read->io.context = read;
  read->io.done = [](void* context, Io*) {
    write_of(context)->volume->read_done(write_of(context));
  };
  read_data(&read->io);
}

void VolumeImpl::read_done(Write* read) {
  Request* request = read->request;
  const int result = read->io.result;
  if (result != 0 && read_again(&read->io)) return;
  if (result != 0 && hold_failed(request)) {
    free_write(read);
    return;
  }
  if (result == 0) {
    if (read->bounce != nullptr) {
      std::memcpy(request->buffer, read->bounce + (read->range.offset - read->aligned.offset),
                  read->range.length);
    }
    ++counters.reads;
    counters.read_bytes += request->length;
  }
  free_write(read);
  complete_now(request, result);
}

// --- writes ---

void VolumeImpl::start_flush(Request* request) {
  Write* write = new_write();
  write->request = request;
  write->kind = IoKind::kFlush;
  enter_send(write);
}

void VolumeImpl::start_write(Request* request) {
  Write* write = new_write();
  write->request = request;
  write->fua = (request->flags & kRequestFua) != 0;
  write->no_unmap = (request->flags & kRequestNoUnmap) != 0;
  write->range = {request->offset, request->length};
  write->data = request->buffer;
  write->kind = request->op == Op::kWrite     ? IoKind::kWrite
                : request->op == Op::kDiscard ? IoKind::kDiscard
                                              : IoKind::kWriteZeroes;
  begin(write);
}

void VolumeImpl::begin(Write* write) {
  write->piece = {write->range.offset, 0};
  write->lock.range = align_out(write->range);
  write->lock.exclusive = true;
  write->lock.context = write;
  write->lock.granted = [](void* context, RangeLock*) {
    write_of(context)->volume->next_piece(write_of(context));
  };
  if (locks.acquire(&write->lock)) next_piece(write);
}

void VolumeImpl::next_piece(Write* write) {
  const uint64_t at = write->piece.end();
  const uint64_t left = write->range.end() - at;
  if (left == 0 || write->error != 0) {
    if (write->fua && write->kind != IoKind::kWrite && write->error == 0 && !diskless() &&
        write->io.kind != IoKind::kFlush) {
      // Zeroing has no FUA of its own.
      write->io = Io{};
      write->io.kind = IoKind::kFlush;
      write->io.context = write;
      write->io.done = [](void* context, Io* io) {
        Write* self = write_of(context);
        if (io->result != 0) self->volume->local_write_failed(self);
        self->volume->next_piece(self);
      };
      host.submit(&write->io);
      return;
    }
    write->local_done = true;
    if (!write->remote) locks.release(&write->lock);
    settle(write);
    return;
  }

  const bool data = write->kind == IoKind::kWrite;
  uint64_t end = write->range.end();
  const uint64_t block = round_down(at, block_bytes);
  if (data) {
    end = std::min(end, block + kFramePayloadMax);
  } else if (at != block || left < block_bytes) {
    end = std::min(end, block + block_bytes);  // an edge: zeroes are written into it
  } else {
    end = std::min(round_down(end, block_bytes), at + kZeroPieceMax);
  }
  if (use_log(write)) {
    const uint64_t extents = log->max_extents_per_write();
    end = std::min(end, (at / extent_bytes() + extents) * extent_bytes());
  }
  write->piece = {at, end - at};
  write->aligned = align_out(write->piece);
  const bool whole = write->aligned.offset == at && write->aligned.length == write->piece.length;
  write->piece_kind = whole ? write->kind : IoKind::kWrite;
  if (whole) {
    enter_log(write);
    return;
  }
  write->bounce = allocate_bounce(write->aligned.length);
  write->io = Io{};
  write->io.kind = IoKind::kRead;
  write->io.offset = write->aligned.offset;
  write->io.length = write->aligned.length;
  write->io.buffer = write->bounce;
  write->io.context = write;
  write->io.done = [](void* context, Io*) {
    write_of(context)->volume->modify_piece(write_of(context));
  };
  read_data(&write->io);
}

void VolumeImpl::modify_piece(Write* write) {
  if (write->io.result != 0) {
    if (read_again(&write->io)) return;
    write->error = write->io.result;
    next_piece(write);
    return;
  }
  uint8_t* into = write->bounce + (write->piece.offset - write->aligned.offset);
  if (write->kind == IoKind::kWrite) {
    std::memcpy(into, write->data + (write->piece.offset - write->range.offset),
                write->piece.length);
  } else {
    std::memset(into, 0, write->piece.length);
  }
  enter_log(write);
}

void VolumeImpl::enter_log(Write* write) {
  if (diskless() || !use_log(write)) {
    enter_send(write);
    return;
  }
  if (detaching()) {
    log_wait.push_back(write);
    return;
  }
  if (meta.failed()) {
    write->error = -EIO;
    next_piece(write);
    return;
  }
  uint32_t first = 0;
  uint32_t last = 0;
  extents_of(write->aligned, &first, &last);
  const bool peer = write->origin == Origin::kApplication && link_active();
  switch (log->begin(first, last, peer)) {
    case ActivityLog::Begin::kHot:
      write->in_log = true;
      write->in_log_for_peer = peer;
      enter_send(write);
      return;
    case ActivityLog::Begin::kFull:
      log_full = true;
      [[fallthrough]];
    case ActivityLog::Begin::kPending:
      log_wait.push_back(write);
      return;
    case ActivityLog::Begin::kTooMany:
      check(false, "a piece needs more extents than the activity log allows");
  }
}

void VolumeImpl::retry_log() {
  log_retry = false;
  log_full = false;
  std::deque<Write*> waiting;
  waiting.swap(log_wait);
  log->begin_retries();
  for (Write* write : waiting) enter_log(write);
}

void VolumeImpl::fail_log_waiters() {
  if (detaching()) return;  // they go to the peer, or are failed afterwards
  std::deque<Write*> waiting;
  waiting.swap(log_wait);
  for (Write* write : waiting) {
    write->error = -EIO;
    next_piece(write);
  }
}

void VolumeImpl::enter_send(Write* write) {
  if (write->origin == Origin::kApplication) {
    const bool behind = link_active() && !send_wait.empty();
    if (writes_held() || behind || !may_send(write)) {
      send_wait.push_back(write);
      return;
    }
  }
  dispatch(write);
}

// There is room for its piece, or no link that would need any.
bool VolumeImpl::may_send(const Write* write) const {
  if (!link_active()) return true;
  const size_t payload = write->piece_kind == IoKind::kWrite ? write->aligned.length : 0;
  return !resync_first() && room_for(payload);
}

void VolumeImpl::retry_send() {
  while (!send_wait.empty() && !writes_held()) {
    Write* write = send_wait.front();
    if (!may_send(write)) return;
    send_wait.pop_front();
    dispatch(write);
  }
}

// From here on the write may change this disk and the peer's: its extents are in the durable log
// (R1), and in this same step it is marked for everybody who does not get it (R8) and queued for
// the one who does.
void VolumeImpl::dispatch(Write* write) {
  const bool application = write->origin == Origin::kApplication;
  if (diskless()) {
    dispatch_remote(write);
    return;
  }
  const bool flush = write->kind == IoKind::kFlush;
  if (write->in_log) {
    uint32_t first = 0;
    uint32_t last = 0;
    extents_of(write->aligned, &first, &last);
    const bool peer = application && link_active();
    if (peer && !write->in_log_for_peer) {
      log->hold(first, last, ActivityLog::Hold::kPeer);
    } else if (!peer && write->in_log_for_peer) {
      log->release(first, last, ActivityLog::Hold::kPeer);
    }
    write->in_log_for_peer = false;  // from now on the transfer log's
  }
  if (!flush) {
    mark_absent(write->aligned);
    if (application && !link_active()) mark_range(link.slot, write->aligned);
  }
  if (application) {
    ensure_apart_generation();
    if (link_active()) append_sent(write);
  }
  write->io = Io{};
  write->io.kind = flush ? IoKind::kFlush : write->piece_kind;
  if (!flush) {
    write->io.flags =
        static_cast<uint8_t>((write->fua && write->piece_kind == IoKind::kWrite ? kIoFua : 0) |
                             (write->no_unmap ? kIoNoUnmap : 0));
    write->io.offset = write->aligned.offset;
    write->io.length = write->aligned.length;
    if (write->piece_kind == IoKind::kWrite) {
      write->io.buffer = write->bounce != nullptr
                             ? write->bounce
                             : write->data + (write->piece.offset - write->range.offset);
    }
  }
  write->io.context = write;
  write->io.done = [](void* context, Io*) {
    write_of(context)->volume->piece_done(write_of(context));
  };
  host.submit(&write->io);
}

void VolumeImpl::piece_done(Write* write) {
  const bool flush = write->kind == IoKind::kFlush;
  if (write->io.result != 0) local_write_failed(write);
  if (write->in_log) {
    uint32_t first = 0;
    uint32_t last = 0;
    extents_of(write->aligned, &first, &last);
    log->release(first, last, ActivityLog::Hold::kLocal);
    write->in_log = false;
    log_retry = true;
  }
  std::free(write->bounce);
  write->bounce = nullptr;
  if (flush) {
    write->local_done = true;
    settle(write);
    return;
  }
  next_piece(write);
}

void VolumeImpl::settle(Write* write) {
  if (!write->local_done || write->ended || write->acks_pending != 0 || write->epoch_wait != 0)
    return;
  if (write->restart) {
    start_again(write);
    return;
  }
  write->ended = true;
  if (write->origin == Origin::kApplication && !gate_open()) {
    gate_wait.push_back(write);
    return;
  }
  finish(write);
}

void VolumeImpl::drain_gate() {
  std::deque<Write*> waiting;
  waiting.swap(gate_wait);
  for (Write* write : waiting) {
    if (gate_open()) {
      finish(write);
    } else {
      gate_wait.push_back(write);
    }
  }
}

void VolumeImpl::finish(Write* write) {
  if (write->origin != Origin::kApplication) {
    received_write_done(write);
    return;
  }
  Request* request = write->request;
  int result = write->error;
  if (!diskless()) {
    if (result == 0) result = write->swallowed;
    if (result == 0 && meta.failed()) result = -EIO;
  }
  if (write->remote && write->kind != IoKind::kFlush) locks.release(&write->lock);
  if (result != 0 && hold_failed(request)) {
    free_write(write);
    return;
  }
  if (write->kind == IoKind::kFlush) {
    ++counters.flushes;
  } else if (write->kind == IoKind::kDiscard) {
    ++counters.discards;
  } else {
    ++counters.writes;
    counters.written_bytes += request->length;
  }
  free_write(write);
  complete_now(request, result);
}

}  // namespace tidemark
