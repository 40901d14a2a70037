#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "core/activity_log.h"
#include "core/layout.h"
#include "core/log_block.h"
#include "random.h"

namespace tidemark {
namespace {

using Status = LogReplay::Status;
using Block = std::array<uint8_t, kBlockSize>;

constexpr uint64_t kMetadataId = 0x1122334455667788;

// A ring of blocks as it lies on disk.
struct Ring {
  LogBlockName name;
  std::vector<Block> blocks;

  explicit Ring(uint32_t extents) : name{kMetadataId, 0, extents} {
    Geometry geometry;
    geometry.volume_bytes = uint64_t{1} << 30;
    geometry.log_extents = extents;
    blocks.resize(make_layout(geometry).log_ring_blocks);
    for (Block& block : blocks) block.fill(0);
  }

  Block& at(uint64_t number) { return blocks[number % blocks.size()]; }

  void write(const LogTransaction& transaction) {
    encode_log_block(name, transaction, at(transaction.number));
  }

  // Sectors of the new block and of the old one, some of each. Where they differ in one sector
  // only, there is no such thing as torn: then true says that the new one is all there.
  bool tear(const LogTransaction& transaction, test::Random& random) {
    Block whole;
    encode_log_block(name, transaction, whole);
    const Block old = at(transaction.number);
    Block torn = old;
    for (size_t sector = 0; sector < kBlockSize; sector += 512) {
      if (random.chance(2))
        std::copy_n(whole.begin() + static_cast<ptrdiff_t>(sector), 512,
                    torn.begin() + static_cast<ptrdiff_t>(sector));
    }
    at(transaction.number) = torn;
    return torn == whole;
  }

  LogReplay replay(uint64_t start_number) const {
    std::vector<LogTransaction> transactions(blocks.size());
    std::vector<const LogTransaction*> read(blocks.size());
    const auto never = std::make_unique<bool[]>(blocks.size());
    for (size_t i = 0; i < blocks.size(); ++i) {
      const LogBlockStatus status = parse_log_block(name, blocks[i], &transactions[i]);
      read[i] = status == LogBlockStatus::kGood ? &transactions[i] : nullptr;
      never[i] = status == LogBlockStatus::kNeverWritten;
    }
    return replay_log(read, {never.get(), blocks.size()}, name.extents, start_number);
  }
};

// A log that writes each transaction to its ring.
struct Disk {
  Ring ring;
  ActivityLog log;
  uint64_t start;
  Disk(uint32_t extents, uint64_t start_number)
      : ring(extents), log(extents, 1 << 20, start_number), start(start_number) {}
  void add(uint32_t extent) {
    REQUIRE(log.begin(extent, extent, false) == ActivityLog::Begin::kPending);
    ring.write(log.start_transaction());
    log.transaction_done(true);
  }
  LogReplay replay() const { return ring.replay(start); }
};

}  // namespace

TEST_CASE("log block: comes back as it went, and lies where docs/METADATA.md says") {
  LogTransaction transaction;
  transaction.number = 77;
  for (uint32_t i = 0; i < kLogUpdates; ++i)
    transaction.updates.push_back({i * 3, i == 5 ? kExtentNone : 1000 + i});
  transaction.context_start = 880;
  for (uint32_t i = 0; i < 357; ++i) transaction.context.push_back(i % 7 == 0 ? kExtentNone : i);
  const LogBlockName name{kMetadataId, 2, 1237};
  Block block;
  encode_log_block(name, transaction, block);
  CHECK(std::memcmp(block.data(), "TIDELOG1", 8) == 0);
  CHECK(block[16] == 77);
  CHECK(block[24] == 2);
  CHECK(block[36] == 64);
  CHECK(block[64 + 8] == 3);
  CHECK(block[576 + 4] == 1);
  LogTransaction got;
  REQUIRE(parse_log_block(name, block, &got) == LogBlockStatus::kGood);
  CHECK(got.number == 77);
  REQUIRE(got.updates.size() == kLogUpdates);
  CHECK(got.updates[5].extent == kExtentNone);
  CHECK(got.updates[63].slot == 189);
  CHECK(got.context_start == 880);
  CHECK(got.context == transaction.context);

  for (size_t bit = 0; bit < kBlockSize * 8; ++bit) {
    Block bad = block;
    bad[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
    REQUIRE(parse_log_block(name, bad, &got) == LogBlockStatus::kUntrusted);
  }
  LogBlockName other = name;
  other.node_slot = 1;
  CHECK(parse_log_block(other, block, &got) == LogBlockStatus::kUntrusted);
  other = name;
  other.extents = 1236;
  CHECK(parse_log_block(other, block, &got) == LogBlockStatus::kUntrusted);
  other = name;
  other.metadata_id = 1;
  CHECK(parse_log_block(other, block, &got) == LogBlockStatus::kUntrusted);
  block.fill(0);
  CHECK(parse_log_block(name, block, &got) == LogBlockStatus::kNeverWritten);
}

TEST_CASE("log replay: empty, and begun but torn at once, are told from unusable") {
  Disk disk(7, 1);
  CHECK(disk.replay().status == Status::kEmpty);
  CHECK(disk.replay().next_number == 1);
  REQUIRE(disk.log.begin(5, 5, false) == ActivityLog::Begin::kPending);
  disk.ring.write(disk.log.start_transaction());
  disk.ring.at(1)[600] ^= 1;
  LogReplay replay = disk.replay();
  CHECK(replay.status == Status::kEmpty);
  CHECK(replay.torn_blocks == 1);
  CHECK(replay.next_number == 1);
  // Damage where nothing was being written.
  Ring other(7);
  other.at(3)[100] = 1;
  replay = other.replay(1);
  CHECK(replay.status == Status::kUnusable);
  CHECK(replay.why != nullptr);
}

TEST_CASE("log replay: damage that is not one torn tail is unusable, and says why") {
  for (uint64_t written : {3u, 7u, 8u, 20u}) {
    Disk disk(7, 1);
    for (uint32_t i = 0; i < written; ++i) disk.add(i);
    const uint64_t newest = written;
    REQUIRE(disk.replay().status == Status::kOk);
    REQUIRE(disk.replay().extents == disk.log.active());
    const std::vector<Block> good = disk.ring.blocks;
    const uint64_t oldest = newest > 8 ? newest - 7 : 1;
    for (uint64_t number = oldest; number <= newest; ++number) {
      INFO("written ", written, ", block ", number);
      disk.ring.at(number)[2000] ^= 1;
      LogReplay replay = disk.replay();
      if (number == newest) {
        // Cannot be told from a torn tail: the set before it counts.
        CHECK(replay.status == Status::kOk);
        CHECK(replay.next_number == newest);
      } else if (number + 8 == newest + 1) {
        CHECK(replay.status == Status::kOk);  // where the next would be
        CHECK(replay.extents == disk.log.active());
      } else {
        CHECK(replay.status == Status::kUnusable);
        CHECK(replay.extents.empty());
      }
      disk.ring.blocks = good;
      disk.ring.at(number).fill(0);
      replay = disk.replay();
      if (number < newest && number + 8 != newest + 1) CHECK(replay.status == Status::kUnusable);
      if (number + 8 == newest + 1) CHECK(replay.status == Status::kUnusable);
      disk.ring.blocks = good;
      if (number < newest) {
        disk.ring.at(number) = disk.ring.at(newest);
        CHECK(disk.replay().status == Status::kUnusable);
        disk.ring.blocks = good;
      }
    }
    disk.ring.at(newest)[9] ^= 1;
    disk.ring.at(newest + 1)[9] ^= 1;
    CHECK(disk.replay().status == Status::kUnusable);
  }
}

TEST_CASE("log replay: blocks that contradict each other are unusable") {
  Disk disk(7, 1);
  for (uint32_t i = 0; i < 3; ++i) disk.add(i);
  LogTransaction lie;
  lie.number = 4;
  lie.context.assign(7, kExtentNone);  // but 0..2 are in the table
  disk.ring.write(lie);
  CHECK(disk.replay().status == Status::kUnusable);
  LogTransaction twice;
  twice.number = 4;
  twice.updates = {{6, 1}};
  twice.context.assign(7, kExtentNone);
  for (uint32_t slot = 0; slot < 3; ++slot) twice.context[slot] = slot;
  twice.context[6] = 1;
  disk.ring.write(twice);
  CHECK(disk.replay().status == Status::kUnusable);
}

TEST_CASE("log replay: an older log's blocks count as never written") {
  Disk disk(7, 1);
  for (uint32_t i = 0; i < 11; ++i) disk.add(i);
  CHECK(disk.ring.replay(12).status == Status::kEmpty);
  CHECK(disk.ring.replay(12).next_number == 12);
  ActivityLog next(7, 100, 12);
  REQUIRE(next.begin(50, 50, false) == ActivityLog::Begin::kPending);
  disk.ring.write(next.start_transaction());
  next.transaction_done(true);
  const LogReplay replay = disk.ring.replay(12);
  CHECK(replay.status == Status::kOk);
  CHECK(replay.extents == std::vector<uint32_t>{50});
  CHECK(replay.next_number == 13);
  // Nor does damage among them matter, other than right behind the tail.
  disk.ring.at(10)[9] ^= 1;
  CHECK(disk.ring.replay(12).extents == std::vector<uint32_t>{50});
  disk.ring.at(14)[9] ^= 1;
  CHECK(disk.ring.replay(12).extents == std::vector<uint32_t>{50});
  disk.ring.at(13)[9] ^= 1;
  CHECK(disk.ring.replay(12).status == Status::kUnusable);
}

TEST_CASE("log replay: gives exactly the last durable set, whenever and however it crashes") {
  test::Random random;
  INFO("TIDEMARK_SEED=", test::test_seed());
  for (int round = 0; round < 60; ++round) {
    const uint32_t sizes[] = {7, 20, 880, 881, 1237, 5000};
    const uint32_t extents = sizes[random.below(round % 10 == 0 ? 6 : 3)];
    const uint32_t span = extents * 3;
    Ring ring(extents);
    uint64_t start = 1;
    // Several lives of the node over the same ring, each ended by a crash.
    for (int life = 0; life < 6; ++life) {
      ActivityLog log(extents, span, start);
      std::vector<uint32_t> durable;
      std::vector<std::pair<uint32_t, uint32_t>> running;
      const uint64_t transactions =
          random.below(random.chance(2) ? 6 : 3 * ring.blocks.size() + 10);
      uint64_t written = 0;
      uint64_t clock = 0;
      const auto ask = [&](uint32_t first, uint32_t last) {
        if (log.begin(first, last, false) == ActivityLog::Begin::kHot)
          running.push_back({first, last});
      };
      for (;;) {
        log.set_now(++clock);
        for (uint64_t i = random.below(40); i > 0; --i) {
          const auto count = static_cast<uint32_t>(random.between(1, log.max_extents_per_write()));
          const auto first = static_cast<uint32_t>(random.below(span - count));
          ask(first, first + count - 1);
        }
        while (!running.empty() && !random.chance(5)) {
          const size_t victim = random.below(running.size());
          log.release(running[victim].first, running[victim].second, ActivityLog::Hold::kLocal);
          running.erase(running.begin() + static_cast<ptrdiff_t>(victim));
        }
        if (random.chance(3))
          log.retire_idle(clock - std::min<uint64_t>(clock, random.below(10)), 20);
        if (!log.transaction_wanted()) continue;
        const LogTransaction transaction = log.start_transaction();
        if (written++ < transactions) {
          ring.write(transaction);
          log.transaction_done(true);
          durable = log.active();
          continue;
        }
        // The crash: the block did not reach the disk, was torn, or reached it though nobody was
        // told.
        std::set<uint32_t> after(durable.begin(), durable.end());
        uint64_t next = transaction.number;
        bool complete = false;
        switch (random.below(3)) {
          case 0:
            break;
          case 1:
            complete = ring.tear(transaction, random);
            break;
          case 2:
            ring.write(transaction);
            complete = true;
        }
        if (complete) {
          ++next;
          for (uint32_t extent : transaction.evicted) after.erase(extent);
          for (const LogUpdate& update : transaction.updates) {
            if (update.extent != kExtentNone) after.insert(update.extent);
          }
          durable.assign(after.begin(), after.end());
        }
        const LogReplay replay = ring.replay(start);
        INFO("extents ", extents, ", life ", life, ", from ", start, " to ", next, ": ",
             replay.why != nullptr ? replay.why : "");
        REQUIRE(replay.status != Status::kUnusable);
        REQUIRE(replay.status == (next == start ? Status::kEmpty : Status::kOk));
        REQUIRE(replay.extents == durable);
        REQUIRE(replay.next_number == next);
        start = next;
        break;
      }
    }
  }
}

}  // namespace tidemark
