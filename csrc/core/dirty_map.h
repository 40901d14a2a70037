// The dirty map of one peer slot: one bit a chunk, set = the peer's copy of the chunk may differ.
//
// Pure data structure: no I/O. It says which map blocks of the disk are behind RAM; the volume
// writes them.
//
// Invariants
// - Setting rounds outward to whole chunks, clearing rounds inward (R4). The last, shorter chunk of
//   the device counts as whole when the range reaches the device's end.
// - count() is exactly the number of set bits; bits past chunk_count() are never set.
// - A summary above the flat words (one bit per 64 words, and again above that) says which words
//   are not zero, so that next_dirty() costs the dirty part and not the map.
// - A map block (kMapBlockWords words) is `stale` when its words in RAM may differ from what was
//   last written to disk or is being written. stale_set: some bit was *set* since; must be on disk
//   before the extent leaves the log (R2, R3). A block with only clears may wait for the sweep: a
//   stale 1 on disk costs time, never data (R9).
// - Memory is reserved, and touched only where bits were set (mmap, MAP_NORESERVE): a 16 TiB volume
//   that is clean costs no pages of map.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "core/lazy_bitmap.h"
#include "core/types.h"

namespace tidemark {

inline constexpr uint32_t kMapBlockHeaderBytes = 64;
inline constexpr uint32_t kMapBlockWords = (kBlockSize - kMapBlockHeaderBytes) / 8;  // 504
inline constexpr uint64_t kMapBlockChunks = uint64_t{kMapBlockWords} * 64;           // 32,256

struct ChunkRange {
  uint64_t first = 0;
  uint64_t count = 0;
};

class DirtyMap {
 public:
  // size_bytes > 0; chunk_bytes a power of two within kChunkBytesMin..Max. Aborts on misuse; throws
  // std::bad_alloc without memory.
  DirtyMap(uint64_t size_bytes, uint32_t chunk_bytes);
  ~DirtyMap();
  DirtyMap(const DirtyMap&) = delete;
  DirtyMap& operator=(const DirtyMap&) = delete;

  uint64_t size_bytes() const;
  uint32_t chunk_bytes() const;
  uint64_t chunk_count() const;
  uint64_t block_count() const;  // map blocks on disk
  uint64_t count() const;        // dirty chunks
  uint64_t dirty_bytes() const;  // bytes of the dirty chunks, the shorter last one counted as it is
  uint64_t memory_bytes()
      const;  // RAM that the map would use if every page were touched, summaries included

  // Outward / inward rounding. What lies past the device's end is cut off. An empty result has
  // count 0.
  ChunkRange outward(ByteRange range) const;
  ChunkRange inward(ByteRange range) const;
  ByteRange bytes_of(ChunkRange chunks) const;  // cut at the device's end

  // Return how many bits changed. Ranges of zero length change nothing.
  uint64_t mark(ByteRange range);   // outward
  uint64_t clear(ByteRange range);  // inward
  uint64_t mark_chunks(ChunkRange chunks);
  uint64_t clear_chunks(ChunkRange chunks);
  void mark_all();
  void clear_all();
  bool test(uint64_t chunk) const;
  bool any(ByteRange range) const;  // some chunk that touches the range is dirty
  uint64_t count_in(ChunkRange chunks) const;

  // The first dirty chunk at or after `from`, or nothing.
  std::optional<uint64_t> next_dirty(uint64_t from) const;
  // The first run of dirty chunks at or after `from`, at most `max_chunks` long.
  std::optional<ChunkRange> next_dirty_run(uint64_t from, uint64_t max_chunks) const;

  // --- the map on disk ---
  // Map blocks that hold the chunks of a byte range: [first, first + count).
  ChunkRange blocks_of(ByteRange range) const;
  bool block_stale(
      uint64_t block) const;  // needs another write: RAM differs from what is, or is being, written
  bool block_stale_set(uint64_t block) const;  // ... and not only by clears
  // Between begin_write and end_write. The marks in a block are durable when it is neither
  // stale_set nor being written.
  bool block_writing(uint64_t block) const;
  uint64_t stale_blocks() const;
  std::optional<uint64_t> next_stale(uint64_t from_block) const;
  // Copy a block's words for writing and remember that this state is on its way; marks after this
  // make it stale again. `words` has kMapBlockWords entries, the tail past the map is zero. Not
  // while a write of the same block is under way.
  void begin_write(uint64_t block, std::span<uint64_t> words);
  // The write that begin_write started is durable (ok) or failed (the block is stale, with marks,
  // again).
  void end_write(uint64_t block, bool ok);
  // At attach, before anything is marked in the block: take it as read from disk; it is not stale.
  // Bits past the map are ignored.
  void load_block(uint64_t block, std::span<const uint64_t> words);
  // At attach: the block could not be trusted: its range is dirty and the block stale (R15).
  void load_untrusted(uint64_t block);

 private:
  void mark_stale(uint64_t block, bool by_mark);
  // The chunks that a map block holds.
  ChunkRange chunks_of_block(uint64_t block) const;

  uint64_t size_bytes_;
  uint32_t chunk_bytes_;
  LazyBitmap dirty_;      // by chunk
  LazyBitmap stale_;      // by map block
  LazyBitmap stale_set_;  // a part of stale_
  LazyBitmap writing_;
};

}  // namespace tidemark
