// The sending side of the link: frames, epochs, the transfer log and what acknowledgements do to
// it.
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "core/crc32c.h"
#include "core/volume_impl.h"

namespace tidemark {

bool VolumeImpl::room_for(size_t payload_bytes) const {
  return link.controls.empty() && !transfer.full() &&
         host.send_space() >= kFrameHeaderBytes + payload_bytes + kSendHeadroom;
}

bool VolumeImpl::send_frame(FrameHeader header, const uint8_t* payload, bool headroom) {
  const size_t bytes = kFrameHeaderBytes + header.payload_bytes;
  if (host.send_space() < bytes + (headroom ? kSendHeadroom : 0)) return false;
  uint8_t* out = host.send_reserve(bytes);
  if (out == nullptr) return false;
  header.incarnation = link.params.incarnation;
  header.payload_crc = 0;
  if (header.payload_bytes != 0) {
    std::memcpy(out + kFrameHeaderBytes, payload, header.payload_bytes);
    header.payload_crc = crc32c(0, out + kFrameHeaderBytes, header.payload_bytes);
  }
  encode_frame_header(header, std::span<uint8_t, kFrameHeaderBytes>(out, kFrameHeaderBytes));
  host.send_commit(bytes);
  link.sent_us = now_us;
  counters.sent_bytes += bytes;
  return true;
}

// Frames without payload keep their order among each other and before any write that follows
// (room_for).
void VolumeImpl::send_or_queue(const FrameHeader& header) {
  if (!link.controls.empty() || !link.written.empty() || !send_frame(header, nullptr, false)) {
    link.controls.push_back(header);
  }
}

void VolumeImpl::flush_controls() {
  send_written();
  if (!link.written.empty()) return;
  while (!link.controls.empty() && send_frame(link.controls.front(), nullptr, false))
    link.controls.pop_front();
}

// What the peer needs of this step of a write: the frame, its place in the transfer log, and the
// epoch it waits for.
void VolumeImpl::append_sent(Write* write) {
  const Protocol protocol = link.params.protocol;
  if (write->kind == IoKind::kFlush) {
    const bool nothing_open = transfer.open_epoch_writes() == 0;
    if (nothing_open && transfer.closed_epochs() == 0)
      return;  // all that was sent is durable there
    const uint32_t epoch =
        nothing_open && link.last_closed_hard ? transfer.open_epoch() - 1 : close_epoch(true);
    if (protocol == Protocol::kC || diskless()) {
      write->epoch_wait = epoch;
      epoch_wait.push_back(write);
    }
    return;
  }
  const bool last = write->piece.end() == write->range.end();
  if (transfer.open_epoch_writes() == 0) link.epoch_opened_us = now_us;
  FrameHeader header;
  header.type = write->piece_kind == IoKind::kWrite     ? FrameType::kData
                : write->piece_kind == IoKind::kDiscard ? FrameType::kDiscard
                                                        : FrameType::kZeroes;
  header.sequence = transfer.next_sequence();
  header.epoch = transfer.open_epoch();
  header.offset = write->aligned.offset;
  header.length = static_cast<uint32_t>(write->aligned.length);
  if (write->fua) header.flags |= kFrameFua;
  // Protocol A, at the bound of its window: this write waits for the peer, as MD's write-behind
  // does.
  const bool window_full = link.application_in_log >= limits.window_writes ||
                           link.application_bytes + write->aligned.length > limits.window_bytes;
  const bool wait = protocol == Protocol::kC || window_full || diskless();
  const uint8_t* payload = nullptr;
  if (write->piece_kind == IoKind::kWrite) {
    header.payload_bytes = header.length;
    payload = write->bounce != nullptr ? write->bounce
                                       : write->data + (write->piece.offset - write->range.offset);
  }
  // Without a disk here the write completes when it is durable there.
  if (wait && !diskless()) header.flags |= kFrameAckWritten;
  check(send_frame(header, payload, true), "a write was sent without room");
  transfer.append(write->aligned, false, wait ? write : nullptr).in_log = !diskless();
  ++link.application_in_log;
  link.application_us = now_us;
  link.application_bytes += write->aligned.length;
  link.application_ahead += write->aligned.length;
  if (wait) ++write->acks_pending;
  if (write->fua && last && !diskless()) {
    const uint32_t epoch = close_epoch(protocol != Protocol::kC);
    if (protocol == Protocol::kC) {
      write->epoch_wait = epoch;
      epoch_wait.push_back(write);
    }
  }
}

// What a resync alone sent need not be durable soon: nothing waits for it but the clearing of bits,
// and each epoch costs the target a flush.
uint64_t VolumeImpl::epoch_due_us() const {
  const bool resync = link.resync_in_epoch == transfer.open_epoch_writes();
  return link.epoch_opened_us + limits.epoch_interval_us * (resync ? kResyncEpochFactor : 1);
}

uint32_t VolumeImpl::close_epoch(bool hard) {
  FrameHeader header;
  header.type = FrameType::kBarrier;
  header.epoch = transfer.open_epoch();
  header.offset = transfer.open_epoch_writes();
  header.sequence = transfer.next_sequence() - 1;
  if (hard) header.flags |= kFrameHard;
  link.last_closed_hard = hard;
  link.resync_in_epoch = 0;
  link.resync_epoch_bytes = 0;
  const uint32_t epoch = transfer.close_epoch();
  send_or_queue(header);
  return epoch;
}

void VolumeImpl::release_peer(const TransferEntry& entry) {
  if (!entry.in_log) return;
  uint32_t first = 0;
  uint32_t last = 0;
  extents_of(entry.range, &first, &last);
  log->release(first, last, ActivityLog::Hold::kPeer);
}

// R7: everything that the peer may not have is marked. The writes that waited for it go on to the
// gate.
void VolumeImpl::forget_transfer_log() {
  std::vector<Write*> waiting;
  while (const TransferEntry* entry = transfer.front()) {
    if (!entry->resync) {
      mark_range(link.slot, entry->range);
      if (!diskless()) unshared_slots |= 1u << link.slot;
      release_peer(*entry);
      if (entry->owner != nullptr) waiting.push_back(static_cast<Write*>(entry->owner));
    }
    transfer.pop_front();
  }
  log_retry = true;
  link.application_in_log = 0;
  link.application_bytes = 0;
  link.application_ahead = 0;
  link.resync_in_log = 0;
  link.resync_bytes = 0;
  // A write may stand here once for each of its pieces: it is settled with the last, and may be
  // gone after that. In the order in which they were sent, so that two runs end requests in the
  // same order.
  std::vector<Write*> acknowledged;
  for (Write* write : waiting) {
    check(write->acks_pending > 0, "a write waits for more acknowledgements than it sent");
    write->restart = write->restart || diskless();
    if (--write->acks_pending == 0) acknowledged.push_back(write);
  }
  for (Write* write : acknowledged) settle(write);
}

void VolumeImpl::acknowledge_written(const FrameHeader& header,
                                     const std::vector<WrittenRange>& ranges) {
  for (const WrittenRange& range : ranges) {
    if (range.count > transfer.count()) {
      fail_frame(header, "acknowledges more writes than were sent");
      return;
    }
    for (uint64_t sequence = range.first; sequence < range.first + range.count; ++sequence) {
      TransferEntry* entry = transfer.find(sequence);
      if (entry == nullptr || entry->acknowledged) {
        fail_frame(header, "acknowledges write " + std::to_string(sequence) +
                               ", which does not wait for it");
        return;
      }
      if (range.error != 0) {
        // Its disk is not what it was: it is apart from now on, and everything it may miss is
        // marked.
        if (entry->resync && entry->owner != nullptr)
          static_cast<SyncTask*>(entry->owner)->voided = true;
        link_stop("the peer could not write " + std::to_string(entry->range.length) + " bytes at " +
                  std::to_string(entry->range.offset) + ": " +
                  std::strerror(range.error == INT32_MIN ? EIO : std::abs(range.error)));
        return;
      }
      entry->acknowledged = true;
      link.progress_us = now_us;
      if (entry->resync) {
        link.pace.written(sequence);
        link.pace.end(entry->range.length);
      } else {
        link.application_ahead -= entry->range.length;
      }
      if (entry->resync || entry->owner == nullptr) continue;
      Write* write = static_cast<Write*>(std::exchange(entry->owner, nullptr));
      --write->acks_pending;
      settle(write);
    }
  }
}

void VolumeImpl::acknowledge_epoch(uint32_t epoch) {
  link.progress_us = now_us;
  pop_durable();
  while (!epoch_wait.empty() && epoch_wait.front()->epoch_wait <= epoch) {
    Write* write = epoch_wait.front();
    epoch_wait.pop_front();
    write->epoch_wait = 0;
    settle(write);
  }
  // What is sent later does not count: a resync goes on sending.
  while (!drains.empty() && drains.front().upto <= transfer.base()) {
    const Done done = std::move(drains.front().done);
    drains.pop_front();
    done(0, "");
  }
}

void VolumeImpl::pop_durable() {
  while (const TransferEntry* entry = transfer.front_durable()) {
    const TransferEntry durable = *entry;
    transfer.pop_front();
    if (durable.resync) {
      --link.resync_in_log;
      link.resync_bytes -= durable.range.length;
      if (!durable.acknowledged) {  // durable is more than written
        link.pace.written(durable.sequence);
        link.pace.end(durable.range.length);
      }
      task_durable(static_cast<SyncTask*>(durable.owner), durable.range, durable.error != 0);
      continue;
    }
    release_peer(durable);
    log_retry = true;
    --link.application_in_log;
    link.application_bytes -= durable.range.length;
    if (!durable.acknowledged) link.application_ahead -= durable.range.length;
    if (durable.owner != nullptr) {  // durable is more than written
      Write* write = static_cast<Write*>(durable.owner);
      --write->acks_pending;
      settle(write);
    }
  }
}

bool VolumeImpl::send_control(const std::string& json) {
  if (!link_active() || json.empty() || json.size() > kSendHeadroom / 2 || !link.controls.empty())
    return false;
  FrameHeader header;
  header.type = FrameType::kControl;
  header.payload_bytes = static_cast<uint32_t>(json.size());
  return send_frame(header, reinterpret_cast<const uint8_t*>(json.data()), false);
}

}  // namespace tidemark
