#include "core/run_length.h"

#include <doctest/doctest.h>

#include <vector>

#include "random.h"

namespace tidemark {
namespace {

using Bytes = std::vector<uint8_t>;

void require_same(const DirtyMap& a, const DirtyMap& b) {
  REQUIRE(a.count() == b.count());
  uint64_t at = 0;
  while (const auto run = a.next_dirty_run(at, UINT64_MAX)) {
    REQUIRE(b.count_in(*run) == run->count);
    at = run->first + run->count;
  }
}

}  // namespace

TEST_CASE("run length: a clean map is one number, a dirty one two") {
  DirtyMap map(1000 * 4096, 4096);
  Bytes code;
  CHECK(encode_runs(map, 0, 32, &code) == 1000);
  CHECK(code == Bytes{0xe8, 0x07});
  map.mark_all();
  code.clear();
  CHECK(encode_runs(map, 0, 32, &code) == 1000);
  CHECK(code == Bytes{0x00, 0xe8, 0x07});
  code.clear();
  CHECK(encode_runs(map, 1000, 32, &code) == 1000);
  CHECK(code.empty());
  CHECK(apply_runs(code, 1000, &map) == 1000);
}

TEST_CASE("run length: any map goes over in pieces of any size") {
  test::Random random;
  INFO("TIDEMARK_SEED=", test::test_seed());
  for (int round = 0; round < 60; ++round) {
    const uint64_t chunks = random.between(1, 200000);
    DirtyMap map(chunks * 4096, 4096), copy(chunks * 4096, 4096);
    for (uint64_t i = random.below(2000); i > 0; --i) {
      const uint64_t first = random.below(chunks);
      map.mark_chunks({first, std::min(chunks - first, random.chance(20) ? random.below(20000)
                                                                         : random.between(1, 9))});
    }
    if (random.chance(10)) map.mark_all();
    const size_t piece = random.between(32, 3000);
    uint64_t sent = 0, taken = 0;
    while (sent < chunks) {
      Bytes code = {0xee};  // what is there already stays
      const uint64_t before = sent;
      sent = encode_runs(map, sent, piece, &code);
      REQUIRE(sent > before);
      REQUIRE(code[0] == 0xee);
      REQUIRE(code.size() <= 1 + piece);
      const auto covered = apply_runs(std::span(code).subspan(1), taken, &copy);
      REQUIRE(covered);
      taken = *covered;
      REQUIRE(taken == sent);
    }
    require_same(map, copy);
  }
}

TEST_CASE("run length: marks join those that are there") {
  DirtyMap map(100 * 4096, 4096);
  map.mark_chunks({5, 1});
  CHECK(apply_runs(Bytes{10, 2}, 0, &map) == 12);
  CHECK(map.count() == 3);
  CHECK(map.test(5));
}

TEST_CASE("run length: code that cannot be right marks nothing") {
  DirtyMap map(100 * 4096, 4096);
  const Bytes bad[] = {
      {},                   // covers nothing
      {0},                  // the same
      {0, 0},               // an empty dirty run
      {5, 1, 0, 1},         // an empty clean run in the middle
      {0, 101},             // past the end
      {0, 50, 51},          // past the end with a clean run
      {0, 50, 1, 0x80},     // cut off
      {0, 50, 0x81, 0x00},  // longer than it has to be
      {0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01},  // 2^64 - 1
      {0, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02},  // over 64 bits
      {0, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01},
  };
  for (const Bytes& code : bad) {
    CHECK_FALSE(apply_runs(code, 0, &map));
    REQUIRE(map.count() == 0);
  }
  CHECK_FALSE(apply_runs(Bytes{1}, 101, &map));
  CHECK_FALSE(apply_runs(Bytes{1}, 100, &map));
  CHECK_FALSE(apply_runs(Bytes{0, 2}, 99, &map));
  CHECK(apply_runs(Bytes{0, 1}, 99, &map) == 100);
}

TEST_CASE("run length: random bytes never mark outside the map or crash") {
  test::Random random;
  INFO("TIDEMARK_SEED=", test::test_seed());
  for (int round = 0; round < 20000; ++round) {
    DirtyMap map(100 * 4096, 4096);
    Bytes code(random.below(6));
    for (uint8_t& byte : code)
      byte = static_cast<uint8_t>(random.chance(2) ? random.below(20) : random.next());
    const auto covered = apply_runs(code, random.below(110), &map);
    if (!covered) REQUIRE(map.count() == 0);
    if (covered) REQUIRE(*covered <= 100);
  }
}

}  // namespace tidemark
