#include "core/lazy_bitmap.h"

#include <doctest/doctest.h>
#include <sys/resource.h>

#include <algorithm>
#include <vector>

#include "core/activity_log.h"
#include "core/dirty_map.h"
#include "random.h"

namespace tidemark {
namespace {

uint64_t minor_faults() {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<uint64_t>(usage.ru_minflt);
}

uint64_t changes(std::vector<uint8_t>* model, uint64_t first, uint64_t count, uint8_t value) {
  uint64_t changed = 0;
  for (uint64_t bit = first; bit < first + count; ++bit) {
    changed += (*model)[bit] != value;
    (*model)[bit] = value;
  }
  return changed;
}

void require_equal(const LazyBitmap& bits, const std::vector<uint8_t>& model) {
  REQUIRE(bits.count() == static_cast<uint64_t>(std::count(model.begin(), model.end(), 1)));
  uint64_t next = LazyBitmap::kNone;
  for (uint64_t bit = model.size(); bit-- > 0;) {
    if (model[bit] != 0) next = bit;
    REQUIRE(bits.test(bit) == (model[bit] != 0));
    REQUIRE(bits.next_set(bit) == next);
  }
}

}  // namespace

TEST_CASE("lazy bitmap: ranges and words of every length agree with one byte a bit") {
  test::Random random;
  INFO("TIDEMARK_SEED=" << test::test_seed());
  // One word; one group of words, and not quite; several groups, the last one cut off.
  for (const uint64_t size : {uint64_t{64}, uint64_t{4095}, uint64_t{4096}, uint64_t{70'001}}) {
    CAPTURE(size);
    LazyBitmap bits(size);
    std::vector<uint8_t> model(size);
    for (int step = 0; step < 400; ++step) {
      const uint64_t first = random.next() % size;
      const uint64_t longest =
          random.next() % 2 == 0 ? size - first : std::min(size - first, uint64_t{130});
      const uint64_t count = random.next() % (longest + 1);
      switch (random.next() % 4) {
        case 0:
          REQUIRE(bits.set_range(first, count) == changes(&model, first, count, 1));
          break;
        case 1:
          REQUIRE(bits.set_range(0, size) == changes(&model, 0, size, 1));
          break;
        case 2:
          REQUIRE(bits.clear_range(first, count) == changes(&model, first, count, 0));
          break;
        case 3: {
          // Past the end, too.
          std::vector<uint64_t> values(random.next() % 140);
          for (uint64_t& value : values) value = random.next() % 3 == 0 ? random.next() : 0;
          bits.store_words(first / 64, values);
          for (uint64_t at = 0; at < values.size() * 64; ++at) {
            const uint64_t bit = first / 64 * 64 + at;
            if (bit < size) model[bit] = (values[at / 64] >> (at % 64)) & 1;
          }
          break;
        }
      }
      if (step % 20 == 0) require_equal(bits, model);
    }
    require_equal(bits, model);
  }
}

TEST_CASE("lazy bitmap: what stays empty touches no page, and a page that is filled faults once") {
  constexpr uint64_t kPages = 4096;
  constexpr uint64_t kPageBits = 4096 * 8;
  LazyBitmap bits(kPages * kPageBits);
  uint64_t before = minor_faults();
  std::vector<uint64_t> page(512);
  for (uint64_t at = 0; at < kPages; ++at) bits.store_words(at * 512, page);
  // Those of the summary may be looked at.
  CHECK(minor_faults() - before < kPages / 16);

  LazyBitmap filled(kPages * kPageBits);
  before = minor_faults();
  page[7] = 1;
  for (uint64_t at = 0; at < kPages / 2; ++at) filled.store_words(at * 512, page);
  // Not from a group's border, as the dirty map does it.
  filled.set_range(kPages / 2 * kPageBits + 640, (kPages / 2 - 1) * kPageBits);
  CHECK(filled.count() == kPages / 2 + (kPages / 2 - 1) * kPageBits);
  // Once for each page; a sanitizer's own pages come on top of it.
  CHECK(minor_faults() - before < kPages + kPages / 4);
}

TEST_CASE("dirty map and log need 1 bit a chunk and 2 % more, from 1 TiB on") {
  for (const uint64_t bytes : {uint64_t{1} << 40, uint64_t{1} << 44, uint64_t{1} << 50}) {
    CAPTURE(bytes);
    const DirtyMap map(bytes, kChunkBytesDefault);
    const ActivityLog log(kExtentsDefault, bytes / kExtentBytesDefault, 1);
    CHECK((map.memory_bytes() + log.memory_bytes()) * 100 <= map.chunk_count() / 8 * 102);
  }
}

}  // namespace tidemark
