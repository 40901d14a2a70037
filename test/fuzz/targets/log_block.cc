// Log blocks, and what a ring of them says after a crash: a real activity log writes a ring, which
// is then torn, rotten or forged.
#include "core/log_block.h"

#include <array>
#include <deque>
#include <memory>
#include <vector>

#include "core/activity_log.h"
#include "core/check.h"
#include "input.h"
#include "samples.h"

namespace tidemark::fuzz {
namespace {

constexpr size_t kCrcAt = 40;
constexpr uint64_t kExtents = 64;  // of the volume
constexpr LogBlockName kName{0x4746454443424140, 1, kExtentsMin};

using Block = std::array<uint8_t, kBlockSize>;

struct Ring {
  std::vector<Block> blocks;
  std::vector<uint32_t> hot;  // durable after the last whole transaction
  uint64_t start = 1;         // of this log
  uint64_t next = 1;          // number of the next transaction
};

// Some life of a log; it ends between two transactions, or within one.
Ring write_ring(Input* input) {
  Ring ring;
  ring.blocks.resize(8);
  ring.start = ring.next = 1 + input->below(20);
  ActivityLog log(kExtentsMin, kExtents, ring.start);
  std::deque<uint32_t> held;
  uint64_t now = 0;
  for (size_t steps = input->below(64); steps > 0; --steps) {
    const uint8_t what = input->byte();
    log.set_now(++now);
    const uint32_t extent = what % kExtents;
    if (log.begin(extent, extent, false) == ActivityLog::Begin::kHot) held.push_back(extent);
    while (held.size() > what / 64u) {
      log.release(held.front(), held.front(), ActivityLog::Hold::kLocal);
      held.pop_front();
    }
    if (what == 255) log.retire_idle(now, 3);
    if (!log.transaction_wanted()) continue;
    const LogTransaction& transaction = log.start_transaction();
    Block& block = ring.blocks[transaction.number % ring.blocks.size()];
    if (steps == 1) {  // the power goes while this is written
      std::fill_n(block.begin() + 512 * input->below(8), 512, static_cast<uint8_t>(what | 1));
      break;
    }
    encode_log_block(kName, transaction, block);
    ring.next = transaction.number + 1;
    log.transaction_done(true);
    ring.hot = log.active();
  }
  return ring;
}

LogReplay replay(const Ring& ring) {
  const size_t count = ring.blocks.size();
  std::vector<LogTransaction> transactions(count);
  std::vector<const LogTransaction*> good(count, nullptr);
  const auto blank = std::make_unique<bool[]>(count);
  for (size_t at = 0; at < count; ++at) {
    const LogBlockStatus status = parse_log_block(kName, ring.blocks[at], &transactions[at]);
    blank[at] = status == LogBlockStatus::kNeverWritten;
    if (status != LogBlockStatus::kGood) continue;
    const LogTransaction& parsed = transactions[at];
    check(parsed.updates.size() <= kLogUpdates && parsed.context.size() <= kLogContext,
          "a log block with more than it can hold");
    Block again;
    encode_log_block(kName, parsed, again);
    check(again == ring.blocks[at], "a log block is not what was parsed of it");
    blank[at] = parsed.number < ring.start;
    if (!blank[at]) good[at] = &parsed;
  }
  return replay_log(good, std::span<const bool>(blank.get(), count), kName.extents, ring.start);
}

bool covers(const LogReplay& replay, const std::vector<uint32_t>& hot) {
  if (replay.status == LogReplay::Status::kUnusable) return true;  // everything counts as dirty
  return std::includes(replay.extents.begin(), replay.extents.end(), hot.begin(), hot.end());
}

}  // namespace
}  // namespace tidemark::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tidemark;
  using namespace tidemark::fuzz;
  Input input({data, size});
  Ring ring = write_ring(&input);
  const LogReplay whole = replay(ring);
  check(whole.status != LogReplay::Status::kUnusable, "a log that only tore is unusable");
  check(covers(whole, ring.hot), "a hot extent is not in what was replayed (R13)");
  check(whole.next_number == ring.next, "the log goes on with another number");

  bool forged = false;
  while (!input.empty()) {
    const size_t at = input.below(ring.blocks.size());
    const uint8_t kind = input.byte();
    // A newest block that rots cannot be told from one that tore.
    if (kind % 4 != 0 && at == (ring.next - 1) % ring.blocks.size()) continue;
    Block& block = ring.blocks[at];
    const Block before = block;
    patch(&input, block);
    if (kind % 4 == 0) {
      seal_block(block, kCrcAt);
      forged = forged || block != before;
    }
  }
  const LogReplay after = replay(ring);
  check(after.extents.size() <= kExtentsMin, "more extents than the log has slots");
  check(std::is_sorted(after.extents.begin(), after.extents.end()) &&
            std::adjacent_find(after.extents.begin(), after.extents.end()) == after.extents.end(),
        "the extents are not in order");
  check((after.status == LogReplay::Status::kUnusable) == (after.why != nullptr),
        "a log is unusable without a reason, or usable with one");
  check(forged || covers(after, ring.hot), "damage has made the log forget a hot extent (R15)");
  return 0;
}
