// Rebuilding the activity log's set from a ring of blocks; declared in activity_log.h.
#include <algorithm>
#include <cassert>

#include "core/activity_log.h"

namespace tidemark {
namespace {

LogReplay unusable(LogReplay replay, const char* why) {
  replay.status = LogReplay::Status::kUnusable;
  replay.extents.clear();
  replay.why = why;
  return replay;
}

// The slot table as far as the blocks read so far tell it.
class Table {
 public:
  // `complete`: the blocks begin with the log's first, when every slot was empty.
  Table(uint32_t extents, bool complete)
      : slots_(extents, kExtentNone), known_(extents, complete) {}

  const char* apply(const LogTransaction& transaction) {
    for (const LogUpdate& update : transaction.updates) {
      if (update.slot >= slots_.size()) return "a block changes a slot that does not exist";
      slots_[update.slot] = update.extent;
      known_[update.slot] = true;
    }
    if (transaction.context_start > slots_.size() ||
        transaction.context.size() > slots_.size() - transaction.context_start) {
      return "a block's context lies outside the slot table";
    }
    for (size_t i = 0; i < transaction.context.size(); ++i) {
      const size_t slot = transaction.context_start + i;
      if (known_[slot] && slots_[slot] != transaction.context[i]) {
        return "two blocks contradict each other";
      }
      slots_[slot] = transaction.context[i];
      known_[slot] = true;
    }
    return nullptr;
  }

  bool covered() const { return std::find(known_.begin(), known_.end(), false) == known_.end(); }

  std::vector<uint32_t> extents() const {
    std::vector<uint32_t> extents;
    for (uint32_t extent : slots_) {
      if (extent != kExtentNone) extents.push_back(extent);
    }
    std::sort(extents.begin(), extents.end());
    return extents;
  }

 private:
  std::vector<uint32_t> slots_;
  std::vector<bool> known_;
};

}  // namespace

LogReplay replay_log(std::span<const LogTransaction* const> blocks,
                     std::span<const bool> never_written, uint32_t extents, uint64_t start_number) {
  assert(!blocks.empty() && blocks.size() == never_written.size());
  const uint64_t ring = blocks.size();
  LogReplay replay;
  replay.next_number = start_number;
  bool found = false;
  uint64_t newest = 0;
  for (uint64_t at = 0; at < ring; ++at) {
    if (blocks[at] == nullptr) {
      if (!never_written[at]) ++replay.torn_blocks;
      continue;
    }
    const uint64_t number = blocks[at]->number;
    if (number % ring != at) return unusable(replay, "a block lies where another belongs");
    if (number < start_number) continue;
    newest = found ? std::max(newest, number) : number;
    found = true;
  }
  if (found) replay.next_number = newest + 1;
  const uint64_t next = replay.next_number;
  const auto is_torn = [&](uint64_t number) {
    return blocks[number % ring] == nullptr && !never_written[number % ring];
  };
  const bool torn_tail = is_torn(next);
  // Two in a row: the first may have been durable, and what it said is lost.
  if (torn_tail && is_torn(next + 1)) return unusable(replay, "the last blocks are damaged");
  for (uint64_t ahead = 1; ahead < ring; ++ahead) {
    // Block `ahead` of the next one held transaction next + ahead - ring, if there ever was one.
    if (is_torn(next + ahead) && next + ahead <= ring) {
      return unusable(replay, "a block is damaged where nothing was written yet");
    }
  }
  if (!found) return replay;

  // The place of the next block still holds the oldest, unless the next was begun and torn.
  const uint64_t kept = torn_tail ? ring - 1 : ring;
  uint64_t oldest = start_number;
  if (newest - start_number >= kept) oldest = newest - kept + 1;
  Table table(extents, oldest == start_number);
  for (uint64_t number = oldest; number <= newest; ++number) {
    const LogTransaction* block = blocks[number % ring];
    if (block == nullptr) {
      return unusable(replay, is_torn(number) ? "a block other than the last one written is damaged"
                                              : "a block among those used was never written");
    }
    if (block->number != number) return unusable(replay, "the numbers of the blocks have a gap");
    if (const char* why = table.apply(*block)) return unusable(replay, why);
  }
  if (!table.covered()) {
    return unusable(replay, "the blocks left do not cover the whole slot table");
  }
  replay.extents = table.extents();
  if (std::adjacent_find(replay.extents.begin(), replay.extents.end()) != replay.extents.end()) {
    return unusable(replay, "an extent is in two slots");
  }
  replay.status = LogReplay::Status::kOk;
  return replay;
}

}  // namespace tidemark
