// Disks that fail: what an error does (docs/STATES.md has the table), how a primary lets go of its
// disk and works at its peer, and how the peer keeps what the lost disk lacks.
//
// What must hold
// - While kDetaching nothing completes: the peer first makes everything before durable, and its
//   generation a new one (R7). If the link ends before its answer, the disk is kept, and what
//   failed fails.
// - Without a disk a write completes when it is durable at the peer, so that a link that breaks, or
// a
//   peer that crashes, takes nothing away that was completed. What was not completed is sent again.
// - What the disk's metadata say afterwards never looks newer than the peer's: the generation that
// is
//   worked on is not written here.
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "core/volume_impl.h"

namespace tidemark {

bool VolumeImpl::peer_can_take_over() const {
  return link.state == Connection::kConnected && link.peer_disk == DiskState::kUpToDate &&
         link.peer_role == Role::kSecondary && !link.peer_detached && !link.finishing &&
         !role_changing && !stopped && link_map()->count() == 0;
}

void VolumeImpl::disk_fault(Fault kind, const std::string& why) {
  ++counters.disk_errors;
  emit(EventKind::kIoError, why);
  const bool fatal = kind == Fault::kFlush || kind == Fault::kMetadata;
  if (kind == Fault::kWrite || kind == Fault::kFlush) fault.holes = true;
  if (detaching()) fault.fatal = fault.fatal || fatal;
  if (fault.use != DiskFault::Use::kInUse) return;

  if (role == Role::kPrimary) {
    if (limits.on_io_error == OnIoError::kDetach && peer_can_take_over()) {
      fault.why = why;
      fault.fatal = fatal;
      begin_detach();
      return;
    }
    if (fatal) {
      fault.why = why;
      fail_disk();
    } else if (kind == Fault::kWrite) {
      link.write_failed = link_active();
    }
    fault.holes = fatal && fault.holes;
    if (limits.on_io_error == OnIoError::kSuspend && !suspended && !stopped) {
      set_suspended(why + (fatal ? "; 'tidemark resume' lets the requests fail"
                                 : "; 'tidemark resume' tries again"));
    }
    return;
  }

  if (kind == Fault::kRead) return;  // whoever asked is told
  if (kind == Fault::kWrite && limits.on_io_error == OnIoError::kPassOn && !fault.rejoining &&
      !link.peer_detached) {
    // Another try: a resync writes all that the primary marks. The error goes back with the
    // acknowledgement, and the primary hangs up.
    fault.rejoining = true;
    store_fault(0, kNodeConsistent | kNodeWasUpToDate);
    changed();
    fault.hang_up_us = now_us + kFaultGraceUs;
    emit_disk();
    return;
  }
  fault.why = why;
  fail_disk();
}

// R11: what was written before may be lost, and no later flush will say so.
void VolumeImpl::flush_failed(const char* whose, int error) {
  meta.give_up();
  disk_fault(Fault::kFlush, std::string(whose) + " failed: " + std::strerror(-error));
}

// From now on no write or flush succeeds here. What is stored keeps the disk from coming back as if
// nothing had been lost.
void VolumeImpl::fail_disk() {
  // While it serves a primary without a disk, this one holds the best copy that there is.
  const bool better_copy =
      (role == Role::kSecondary && !link.peer_detached) || peer_can_take_over();
  fault.use = DiskFault::Use::kFailed;
  changed();
  if (better_copy) {
    store_fault(0, kNodeConsistent | kNodeWasUpToDate);
  } else if (fault.holes) {
    store_fault(0, kNodeWasUpToDate);
  }
  emit_disk();
  tell_disk();
  if (role == Role::kSecondary) fault.hang_up_us = now_us + kFaultGraceUs;
}

// As far as the superblock can still be written: the sweep tries again.
void VolumeImpl::store_fault(uint32_t set, uint32_t clear) {
  const uint32_t before = sb().flags;
  sb().flags = (sb().flags | set) & ~clear;
  if (sb().flags != before) record_fault();
}

void VolumeImpl::record_fault() {
  fault.unrecorded = true;
  meta.commit([this](bool) { fault.unrecorded = !meta.committed(); });
}

void VolumeImpl::tell_disk() {
  if (!link_active()) return;
  FrameHeader header;
  header.type = FrameType::kDisk;
  header.offset = diskless() ? 0 : 1;
  send_or_queue(header);
}

void VolumeImpl::poll_fault() {
  if (link.state == Connection::kStandAlone) return;
  if (fault.hang_up_us != 0 && now_us >= fault.hang_up_us) {
    link_stop("the local disk failed" + (fault.why.empty() ? "" : ": " + fault.why));
  } else if (diskless() && role == Role::kSecondary && !role_changing) {
    link_stop("this node has no disk, and is no longer primary");
  }
}

// --- letting go of the disk ---

void VolumeImpl::begin_detach() {
  fault.use = DiskFault::Use::kDetaching;
  changed();
  emit_disk();
  fault.generation = fresh_generation();
  close_epoch(true);
  FrameHeader header;
  header.type = FrameType::kDetach;
  header.offset = fault.generation;
  send_or_queue(header);
}

void VolumeImpl::detach_acknowledged() {
  store_fault(kNodeOutdated, fault.holes ? kNodeConsistent | kNodeWasUpToDate : 0);
  fault.use = DiskFault::Use::kDiskless;
  link.peer_disk = DiskState::kUpToDate;
  meta.close();
  changed();
  emit_disk();
  drain_gate();
  for (Write* write : std::exchange(log_wait, {})) enter_log(write);
  retry_send();
  for (Request* request : std::exchange(fault.held, {})) {
    --requests_out;  // submit() counts it again
    submit(request);
  }
}

// The link ended before the answer: nothing was completed that this disk lacks, and so it is kept.
// The peer may have taken the generation: it lies in the past of the one that this copy takes at
// once, so that this one is known to be the newer.
void VolumeImpl::detach_abandoned() {
  ensure_apart_generation();
  if (broken()) {
    fail_disk();
  } else {
    emit(EventKind::kIoError, "the disk is kept: the peer was lost before it could take over");
    emit_disk();
    fault.why.clear();
    fault.holes = false;
  }
  for (Io* io : std::exchange(remote_queue, {})) host.submit(io);
  if (!log_wait.empty()) retry_log();
  for (Request* request : std::exchange(fault.held, {})) {
    --requests_out;
    submit(request);
  }
}

// --- requests ---

// Under `suspend` a request that failed waits and is done again.
bool VolumeImpl::hold_failed(Request* request) {
  if (limits.on_io_error != OnIoError::kSuspend || role != Role::kPrimary || stopped || unserved ||
      diskless() || (broken() && fault.resumed))
    return false;
  if (!suspended) set_suspended("a request failed; 'tidemark resume' tries again");
  request->core_state = nullptr;
  suspended_requests.push_back(request);
  return true;
}

void VolumeImpl::local_write_failed(Write* write) {
  const int error = write->io.result;
  const bool flush = write->io.kind == IoKind::kFlush;
  if (flush) {
    flush_failed(write->kind == IoKind::kFlush ? "flush of the backing disk" : "flush of zeroes",
                 error);
  } else if (write->origin == Origin::kApplication) {
    disk_fault(Fault::kWrite, "write of " + std::to_string(write->aligned.length) + " bytes at " +
                                  std::to_string(write->aligned.offset) +
                                  " failed: " + std::strerror(-error));
  }
  if (!flush) {
    // R9: a write that failed, whole or in part, leaves its chunks marked for everybody.
    for (uint32_t slot = 0; slot < kMaxPeerSlots; ++slot) {
      if (tracked(slot)) mark_range(slot, write->aligned);
    }
  }
  // What is under way when the disk is let go of is under way to the peer, too.
  const bool elsewhere = write->origin == Origin::kApplication && (detaching() || diskless());
  (elsewhere ? write->swallowed : write->error) = error;
}

// Without a disk here: a step of a write is what the peer gets of it.
void VolumeImpl::dispatch_remote(Write* write) {
  if (write->in_log) {
    uint32_t first = 0;
    uint32_t last = 0;
    extents_of(write->aligned, &first, &last);
    log->release(first, last, ActivityLog::Hold::kLocal);
    if (write->in_log_for_peer) log->release(first, last, ActivityLog::Hold::kPeer);
    write->in_log = false;
    write->in_log_for_peer = false;
  }
  write->remote = true;
  append_sent(write);
  std::free(write->bounce);
  write->bounce = nullptr;
  if (write->kind == IoKind::kFlush) {
    write->local_done = true;
    settle(write);
  } else {
    next_piece(write);
  }
}

// The link that carried it is gone; it keeps its place among those that overlap it.
void VolumeImpl::start_again(Write* write) {
  write->restart = false;
  write->local_done = false;
  write->piece = {write->range.offset, 0};
  if (write->kind == IoKind::kFlush) {
    enter_send(write);
  } else {
    next_piece(write);
  }
}

std::string VolumeImpl::waiting_reason() const {
  return "there is no disk here (" + fault.why +
         ") and no link to the peer whose copy is used instead: I/O waits for it";
}

// What waits for the peer of this diskless node fails: its submitter was told so.
void VolumeImpl::drop_waiting() {
  while (!send_wait.empty() || !remote_queue.empty()) {
    if (!remote_queue.empty()) {
      Io* io = remote_queue.front();
      remote_queue.pop_front();
      end_remote_io(io, -EIO);
      continue;
    }
    Write* write = send_wait.front();
    send_wait.pop_front();
    write->error = -EIO;
    write->restart = false;
    if (write->kind == IoKind::kFlush) {
      write->local_done = true;
      settle(write);
    } else {
      std::free(write->bounce);
      write->bounce = nullptr;
      next_piece(write);
    }
  }
}

// --- at the peer ---

VolumeImpl::Handled VolumeImpl::receive_disk(const FrameHeader& header) {
  if (header.offset > 1) {
    fail_frame(header, "no such state of a disk");
    return Handled::kFailed;
  }
  link.peer_disk = header.offset == 0 ? DiskState::kDiskless : DiskState::kFailed;
  changed();
  emit(EventKind::kLinkState, connection_text(link.state));
  if (link.peer_role == Role::kPrimary) return Handled::kYes;
  link_stop("the peer's disk has failed");
  return Handled::kFailed;
}

// R7: the copy that remains takes a new generation, and from now on keeps log and marks for the
// lost disk. Everything before is durable: a hard barrier came first.
VolumeImpl::Handled VolumeImpl::receive_detach(const FrameHeader& header) {
  if (role == Role::kPrimary || link.peer_role != Role::kPrimary ||
      link.state != Connection::kConnected || link.peer_detached || link.target_finishing ||
      disk_state() != DiskState::kUpToDate || !link.epochs.empty() ||
      header.offset <= kGenerationJustCreated || header.offset == sb().current) {
    fail_frame(header, "this node cannot be the only copy");
    return Handled::kFailed;
  }
  link.peer_detached = true;
  link.peer_disk = DiskState::kDiskless;
  const uint32_t serial = link.serial;
  make_generation(
      [this, serial](bool ok) {
        if (!ok || link.serial != serial) return;
        FrameHeader ack;
        ack.type = FrameType::kDetachAck;
        ack.offset = sb().current;
        send_or_queue(ack);
        emit(EventKind::kLinkState, connection_text(link.state));
      },
      link.slot, header.offset);
  return Handled::kYes;
}

}  // namespace tidemark
