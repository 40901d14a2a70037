#include "core/run_length.h"

#include <cassert>

namespace tidemark {
namespace {

constexpr size_t kNumberBytesMax = 10;  // of 64 bits in groups of 7

void put_number(uint64_t value, std::vector<uint8_t>* out) {
  for (; value >= 0x80; value >>= 7) out->push_back(static_cast<uint8_t>(value | 0x80));
  out->push_back(static_cast<uint8_t>(value));
}

// Takes one number off the front. Nothing when it is cut off, longer than it has to be, or over 64
// bits.
std::optional<uint64_t> take_number(std::span<const uint8_t>* code) {
  uint64_t value = 0;
  for (size_t at = 0; at < code->size() && at < kNumberBytesMax; ++at) {
    const uint8_t byte = (*code)[at];
    if (at + 1 == kNumberBytesMax && byte > 1) return std::nullopt;
    value |= uint64_t{byte & 0x7fu} << (7 * at);
    if (byte < 0x80) {
      if (byte == 0 && at > 0) return std::nullopt;
      *code = code->subspan(at + 1);
      return value;
    }
  }
  return std::nullopt;
}

// Calls visit(ChunkRange) for each dirty run. The first chunk not covered, or nothing when the code
// cannot be right.
template <typename Visit>
std::optional<uint64_t> each_run(std::span<const uint8_t> code, uint64_t from, uint64_t end,
                                 Visit visit) {
  if (from > end) return std::nullopt;
  uint64_t at = from;
  for (bool dirty = false, first = true; !code.empty(); dirty = !dirty, first = false) {
    const std::optional<uint64_t> length = take_number(&code);
    if (!length || *length > end - at) return std::nullopt;
    if (*length == 0 && !first) return std::nullopt;  // only the leading clean run may be empty
    if (dirty) visit(ChunkRange{at, *length});
    at += *length;
  }
  // A piece that covers nothing would be asked for again forever.
  if (at == from && from != end) return std::nullopt;
  return at;
}

}  // namespace

uint64_t encode_runs(const DirtyMap& map, uint64_t from, size_t max_bytes,
                     std::vector<uint8_t>* out) {
  assert(max_bytes >= 2 * kNumberBytesMax);
  assert(from <= map.chunk_count());
  const size_t limit = out->size() + max_bytes;
  const uint64_t end = map.chunk_count();
  uint64_t at = from;
  while (at < end && limit - out->size() >= kNumberBytesMax) {
    const std::optional<ChunkRange> run = map.next_dirty_run(at, end);
    const uint64_t dirty_from = run ? run->first : end;
    put_number(dirty_from - at, out);
    at = dirty_from;
    if (!run || limit - out->size() < kNumberBytesMax) break;
    put_number(run->count, out);
    at += run->count;
  }
  return at;
}

std::optional<uint64_t> apply_runs(std::span<const uint8_t> code, uint64_t from, DirtyMap* map) {
  const uint64_t end = map->chunk_count();
  const std::optional<uint64_t> covered = each_run(code, from, end, [](ChunkRange) {});
  if (!covered) return std::nullopt;
  each_run(code, from, end, [&](ChunkRange run) { map->mark_chunks(run); });
  return covered;
}

}  // namespace tidemark
