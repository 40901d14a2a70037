// Run-length maps: code that may be anything, and maps that come back from their code.
#include "core/run_length.h"

#include <optional>
#include <vector>

#include "core/check.h"
#include "input.h"

namespace tidemark::fuzz {
namespace {

uint64_t size_of(Input* input) {
  const uint64_t chunks = 1 + input->below(3 * kMapBlockChunks);
  return chunks * kChunkBytesMin - kSectorSize * input->below(8);
}

void foreign_code(Input input) {
  DirtyMap map(size_of(&input), kChunkBytesMin);
  const uint64_t from = input.flag() ? input.number() : input.below(map.chunk_count() + 1);
  if (input.flag()) map.mark_chunks({map.chunk_count() / 2, 1});
  const uint64_t before = map.count();
  const std::vector<uint8_t> code = [&] {
    const std::span<const uint8_t> rest = input.rest();
    return std::vector<uint8_t>(rest.begin(), rest.end());
  }();
  const std::optional<uint64_t> next = apply_runs(code, from, &map);
  if (!next) {
    check(map.count() == before, "code that was refused has marked something");
    return;
  }
  check(from <= *next && *next <= map.chunk_count(), "code covers chunks that are not there");
  check(*next > from || from == map.chunk_count(), "code that covers nothing was taken");
  check(map.count() >= before && map.count() <= map.chunk_count(), "the count is wrong");
  check(map.count() - before <= *next - from, "more was marked than is covered");
}

void own_code(Input input) {
  DirtyMap map(size_of(&input), kChunkBytesMin);
  const size_t piece_bytes = 32 + input.below(256);
  uint64_t at = 0;
  while (!input.empty() && at < map.chunk_count()) {
    const uint64_t clean = input.below(300);
    const uint64_t dirty = input.below(300);
    map.mark({(at + clean) * kChunkBytesMin, dirty * kChunkBytesMin});
    at += clean + dirty;
  }
  DirtyMap copy(map.size_bytes(), kChunkBytesMin);
  for (uint64_t from = 0; from < map.chunk_count();) {
    std::vector<uint8_t> code;
    const uint64_t next = encode_runs(map, from, piece_bytes, &code);
    check(next > from && code.size() <= piece_bytes, "a piece is too long, or says nothing");
    const std::optional<uint64_t> covered = apply_runs(code, from, &copy);
    check(covered == next, "a piece is not understood as it was meant");
    from = next;
  }
  check(copy.count() == map.count(), "another map came back");
  for (std::optional<uint64_t> chunk = map.next_dirty(0); chunk;
       chunk = map.next_dirty(*chunk + 1)) {
    check(copy.test(*chunk), "another map came back");
  }
}

}  // namespace
}  // namespace tidemark::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tidemark::fuzz;
  Input input({data, size});
  input.flag() ? own_code(input) : foreign_code(input);
  return 0;
}
