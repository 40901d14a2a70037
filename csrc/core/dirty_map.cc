#include "core/dirty_map.h"

#include <algorithm>
#include <bit>
#include <cassert>

namespace tidemark {
namespace {

uint64_t divide_up(uint64_t value, uint64_t unit) {
  return value / unit + (value % unit != 0 ? 1 : 0);
}

// Runs before the members that divide by the arguments.
uint64_t checked_chunk_count(uint64_t size_bytes, uint32_t chunk_bytes) {
  assert(size_bytes > 0);
  assert(chunk_bytes >= kChunkBytesMin && chunk_bytes <= kChunkBytesMax);
  assert(std::has_single_bit(chunk_bytes));
  return divide_up(size_bytes, chunk_bytes);
}

// Walks the parts of a range of chunks that lie in one map block each.
template <typename Visit>
void each_block(ChunkRange chunks, Visit visit) {
  const uint64_t end = chunks.first + chunks.count;
  for (uint64_t first = chunks.first; first < end;) {
    const uint64_t block = first / kMapBlockChunks;
    const uint64_t stop = std::min(end, (block + 1) * kMapBlockChunks);
    visit(block, first, stop - first);
    first = stop;
  }
}

}  // namespace

DirtyMap::DirtyMap(uint64_t size_bytes, uint32_t chunk_bytes)
    : size_bytes_(size_bytes),
      chunk_bytes_(chunk_bytes),
      dirty_(checked_chunk_count(size_bytes, chunk_bytes)),
      stale_(divide_up(dirty_.size(), kMapBlockChunks)),
      stale_set_(stale_.size()),
      writing_(stale_.size()) {}

DirtyMap::~DirtyMap() = default;

uint64_t DirtyMap::size_bytes() const { return size_bytes_; }
uint32_t DirtyMap::chunk_bytes() const { return chunk_bytes_; }
uint64_t DirtyMap::chunk_count() const { return dirty_.size(); }
uint64_t DirtyMap::block_count() const { return stale_.size(); }
uint64_t DirtyMap::count() const { return dirty_.count(); }

uint64_t DirtyMap::dirty_bytes() const {
  const uint64_t bytes = count() * chunk_bytes_;
  const uint64_t past_end = chunk_count() * chunk_bytes_ - size_bytes_;
  return test(chunk_count() - 1) ? bytes - past_end : bytes;
}

uint64_t DirtyMap::memory_bytes() const {
  return dirty_.memory_bytes() + stale_.memory_bytes() + stale_set_.memory_bytes() +
         writing_.memory_bytes();
}

ChunkRange DirtyMap::outward(ByteRange range) const {
  if (range.length == 0 || range.offset >= size_bytes_) return {};
  const uint64_t end = range.offset + std::min(range.length, size_bytes_ - range.offset);
  const uint64_t first = range.offset / chunk_bytes_;
  return {first, divide_up(end, chunk_bytes_) - first};
}

ChunkRange DirtyMap::inward(ByteRange range) const {
  if (range.length == 0 || range.offset >= size_bytes_) return {};
  const bool to_the_end = range.length >= size_bytes_ - range.offset;
  const uint64_t first = divide_up(range.offset, chunk_bytes_);
  const uint64_t end = to_the_end ? chunk_count() : (range.offset + range.length) / chunk_bytes_;
  return first < end ? ChunkRange{first, end - first} : ChunkRange{};
}

ByteRange DirtyMap::bytes_of(ChunkRange chunks) const {
  assert(chunks.first <= chunk_count() && chunks.count <= chunk_count() - chunks.first);
  if (chunks.count == 0) return {};
  const uint64_t begin = chunks.first * chunk_bytes_;
  const uint64_t end = std::min(size_bytes_, (chunks.first + chunks.count) * chunk_bytes_);
  return {begin, end - begin};
}

uint64_t DirtyMap::mark(ByteRange range) { return mark_chunks(outward(range)); }
uint64_t DirtyMap::clear(ByteRange range) { return clear_chunks(inward(range)); }

uint64_t DirtyMap::mark_chunks(ChunkRange chunks) {
  assert(chunks.first <= chunk_count() && chunks.count <= chunk_count() - chunks.first);
  uint64_t changed = 0;
  each_block(chunks, [&](uint64_t block, uint64_t first, uint64_t count) {
    const uint64_t here = dirty_.set_range(first, count);
    if (here != 0) mark_stale(block, true);
    changed += here;
  });
  return changed;
}

uint64_t DirtyMap::clear_chunks(ChunkRange chunks) {
  assert(chunks.first <= chunk_count() && chunks.count <= chunk_count() - chunks.first);
  const uint64_t end = chunks.first + chunks.count;
  uint64_t changed = 0;
  // From dirty block to dirty block: what is clean costs nothing.
  for (uint64_t bit = dirty_.next_set(chunks.first); bit < end;) {
    const uint64_t block = bit / kMapBlockChunks;
    const uint64_t stop = std::min(end, (block + 1) * kMapBlockChunks);
    changed += dirty_.clear_range(bit, stop - bit);
    mark_stale(block, false);
    bit = dirty_.next_set(stop);
  }
  return changed;
}

void DirtyMap::mark_all() { mark_chunks({0, chunk_count()}); }

void DirtyMap::clear_all() {
  for (uint64_t bit = dirty_.next_set(0); bit != LazyBitmap::kNone;) {
    const uint64_t block = bit / kMapBlockChunks;
    mark_stale(block, false);
    bit = dirty_.next_set((block + 1) * kMapBlockChunks);
  }
  dirty_.clear_all();
  stale_set_.clear_all();  // no marks are left that the disk could miss
}

bool DirtyMap::test(uint64_t chunk) const {
  assert(chunk < chunk_count());
  return dirty_.test(chunk);
}

bool DirtyMap::any(ByteRange range) const {
  const ChunkRange chunks = outward(range);
  return chunks.count != 0 && dirty_.next_set(chunks.first) < chunks.first + chunks.count;
}

uint64_t DirtyMap::count_in(ChunkRange chunks) const {
  return dirty_.count_range(chunks.first, chunks.count);
}

std::optional<uint64_t> DirtyMap::next_dirty(uint64_t from) const {
  const uint64_t bit = dirty_.next_set(from);
  if (bit == LazyBitmap::kNone) return std::nullopt;
  return bit;
}

std::optional<ChunkRange> DirtyMap::next_dirty_run(uint64_t from, uint64_t max_chunks) const {
  assert(max_chunks > 0);
  const uint64_t first = dirty_.next_set(from);
  if (first == LazyBitmap::kNone) return std::nullopt;
  const uint64_t limit = first + std::min(max_chunks, chunk_count() - first);
  return ChunkRange{first, dirty_.next_clear(first, limit) - first};
}

ChunkRange DirtyMap::blocks_of(ByteRange range) const {
  const ChunkRange chunks = outward(range);
  if (chunks.count == 0) return {};
  const uint64_t first = chunks.first / kMapBlockChunks;
  return {first, (chunks.first + chunks.count - 1) / kMapBlockChunks - first + 1};
}

void DirtyMap::mark_stale(uint64_t block, bool by_mark) {
  stale_.set(block);
  if (by_mark) stale_set_.set(block);
}

ChunkRange DirtyMap::chunks_of_block(uint64_t block) const {
  assert(block < block_count());
  const uint64_t first = block * kMapBlockChunks;
  return {first, std::min(kMapBlockChunks, chunk_count() - first)};
}

bool DirtyMap::block_stale(uint64_t block) const {
  assert(block < block_count());
  return stale_.test(block);
}

bool DirtyMap::block_stale_set(uint64_t block) const {
  assert(block < block_count());
  return stale_set_.test(block);
}

bool DirtyMap::block_writing(uint64_t block) const {
  assert(block < block_count());
  return writing_.test(block);
}

uint64_t DirtyMap::stale_blocks() const { return stale_.count(); }

std::optional<uint64_t> DirtyMap::next_stale(uint64_t from_block) const {
  const uint64_t block = stale_.next_set(from_block);
  if (block == LazyBitmap::kNone) return std::nullopt;
  return block;
}

void DirtyMap::begin_write(uint64_t block, std::span<uint64_t> words) {
  assert(words.size() == kMapBlockWords);
  assert(!block_writing(block));
  const uint64_t first = block * kMapBlockWords;
  for (uint64_t i = 0; i < kMapBlockWords; ++i) {
    words[i] = first + i < dirty_.word_count() ? dirty_.word(first + i) : 0;
  }
  stale_.clear(block);
  stale_set_.clear(block);
  writing_.set(block);
}

void DirtyMap::end_write(uint64_t block, bool ok) {
  assert(block_writing(block));
  writing_.clear(block);
  if (!ok) mark_stale(block, true);
}

void DirtyMap::load_block(uint64_t block, std::span<const uint64_t> words) {
  assert(words.size() == kMapBlockWords);
  assert(!block_stale(block) && !block_writing(block));
  dirty_.store_words(block * kMapBlockWords, words);
}

void DirtyMap::load_untrusted(uint64_t block) {
  const ChunkRange chunks = chunks_of_block(block);
  dirty_.set_range(chunks.first, chunks.count);
  mark_stale(block, true);
}

}  // namespace tidemark
