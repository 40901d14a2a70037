// Nodes that fail over at random moments.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <vector>

#include "pair.h"

namespace tidemark::test {

// Nodes fail over, disks and buffers fail, rings are small, metadata lie on their own disk, a third
// node is tracked: after joining in peace the disks are equal and nothing promised is lost.
TEST_CASE("failovers at random moments lose nothing that was promised") {
  for (uint64_t round = 0; round < 60; ++round) {
    const uint64_t seed = test_seed() * 1000 + round;
    INFO("seed " << seed << " round " << round);
    Pair pair(seed, Protocol::kC, round % 2 == 1);
    Random& random = pair.random;
    Node* primary = &pair.a;
    if (round % 3 == 0) {
      pair.cut();
      pair.bind_stranger(pair.a);
      pair.bind_stranger(pair.b);
      REQUIRE(pair.connect(&pair.a, false));
      REQUIRE(pair.run([&] { return pair.connected(); }));
    }
    for (Node* node : {&pair.a, &pair.b}) {
      node->buffers_fail_one_in = 5;
      node->wire_bytes = 1200u << 10;
      node->receive_bytes = 1200u << 10;
    }
    const uint64_t blocks = primary->size() / 4096;
    // Values that a block may hold: the one known to be durable, and all that came later.
    std::map<uint64_t, std::vector<uint8_t>> may;
    for (int life = 0; life < 5; ++life) {
      INFO("life " << life);
      struct Out {
        Request* request;
        uint64_t block;
        uint8_t fill;
      };
      std::vector<Out> out;
      const bool disk_fails = random.chance(4);
      const uint64_t writes = 5 + random.below(50);
      for (uint64_t i = 0; i < writes; ++i) {
        const uint64_t block = random.below(blocks);
        const uint8_t fill = static_cast<uint8_t>(1 + random.below(255));
        const bool busy = std::any_of(out.begin(), out.end(), [&](const Out& one) {
          return one.block == block && one.request->result > 0;
        });
        if (!busy && may.find(block) == may.end()) may[block] = {primary->data()[block * 4096]};
        if (!busy) {
          out.push_back({pair.write(*primary, block * 4096, 4096, fill), block, fill});
          may[block].push_back(fill);
        }
        for (uint64_t steps = random.below(80); steps > 0; --steps) pair.step();
        if (disk_fails && i == writes / 2) pair.other(*primary).fail_next_write = -EIO;
        if (random.chance(40)) pair.cut();
      }
      std::vector<bool> done;
      for (const Out& one : out) done.push_back(one.request->result == 0);
      Request* flush = random.chance(2) ? pair.flush(*primary) : nullptr;
      for (uint64_t steps = random.below(3000); steps > 0; --steps) pair.step();
      const bool together = pair.connected();
      std::map<uint64_t, std::vector<uint8_t>> known = may;  // what may be found without power loss
      for (size_t i = 0; i < out.size(); ++i) {
        if (out[i].request->result != 0) continue;
        auto& values = known[out[i].block];
        values.erase(values.begin(), std::find(values.begin(), values.end(), out[i].fill));
      }
      if (flush != nullptr && flush->result == 0) {
        for (size_t i = 0; i < out.size(); ++i) {
          if (!done[i]) continue;
          auto& values = may[out[i].block];
          const auto at = std::find(values.begin(), values.end(), out[i].fill);
          values.erase(values.begin(), at);
        }
      }

      // Who dies, and who goes on.
      Node* second = &pair.other(*primary);
      const bool second_broken = second->volume().status().disk == DiskState::kFailed;
      const bool first_dies = random.chance(2);
      const bool second_dies = second_broken || random.chance(4);
      const bool power = random.chance(2);
      const bool lost_cache = power && (first_dies || second_dies);
      pair.wire_up = false;
      second->fail_next_write = 0;
      if (first_dies) primary->crash(power);
      if (second_dies) second->crash(power);
      if (second_dies) second->attach();
      const bool fails_over = first_dies && together && !second_broken && random.chance(2) &&
                              second->volume().status().disk == DiskState::kUpToDate;
      if (!fails_over && first_dies) primary->attach();
      if (!first_dies) primary->volume().link_stop("cut");
      second->volume().link_stop("cut");
      Node* next = fails_over ? second : primary;
      int error = 1;
      if (fails_over) {
        REQUIRE(
            pair.finish([&](Done finished) { next->volume().promote(false, finished); }, &error));
        REQUIRE(error == 0);
        for (uint64_t i = random.below(5); i > 0; --i) {
          const uint64_t block = random.below(blocks);
          const uint8_t fill = static_cast<uint8_t>(1 + random.below(255));
          if (known.find(block) != known.end()) continue;
          Request* request = pair.write(*next, block * 4096, 4096, fill);
          REQUIRE(pair.wait(request));
          REQUIRE(request->result == 0);
          known[block] = {fill};
          may[block] = {fill};
        }
        primary->attach();
      } else if (!first_dies) {
        REQUIRE(pair.run([&] { return primary->volume().status().requests_in_flight == 0; }));
      }
      REQUIRE(pair.idle());
      const Agreed agreed = decide(pair);
      REQUIRE(agreed.possible);
      if (next->volume().status().role == Role::kPrimary && agreed.source != nullptr)
        REQUIRE(agreed.source == next);
      REQUIRE(pair.connect(agreed.source, agreed.full, pair.protocol));
      REQUIRE(pair.run([&] { return pair.connected(); }));
      primary = next;
      if (primary->volume().status().role != Role::kPrimary) {
        REQUIRE(pair.finish([&](Done finished) { primary->volume().promote(false, finished); },
                            &error));
        REQUIRE(error == 0);
      }
      REQUIRE(pair.identical());
      for (const auto& [block, values] : lost_cache ? may : known) {
        const uint8_t is = primary->data()[block * 4096];
        if (std::count(values.begin(), values.end(), is) == 0)
          FAIL("block " << block << " holds " << int(is) << ", expected " << int(values[0])
                        << (fails_over ? ", failed over" : "") << (lost_cache ? ", power" : ""));
      }
      Request* settled = pair.flush(*primary);
      REQUIRE(pair.wait(settled));
      REQUIRE(settled->result == 0);
      may.clear();
      pair.a.completed.clear();
      pair.b.completed.clear();
    }
  }
}

}  // namespace tidemark::test
