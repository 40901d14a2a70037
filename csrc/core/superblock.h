// The superblock in RAM and its codec. Two copies, far apart; a change is written and flushed to
// one, then to the other (R14).
//
// Invariants
// - `serial` grows by one with each write; of two good copies the higher serial counts.
// - A copy whose magic, checksum, version or geometry cannot be trusted is never guessed at (R15):
//   parse says by name what is wrong.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "core/layout.h"
#include "core/types.h"

namespace tidemark {

inline constexpr uint32_t kFormatVersion = 1;
inline constexpr uint32_t kHistory = 8;
// A generation is a random 64-bit number. 0 = none, 1 = just created.
inline constexpr uint64_t kGenerationNone = 0;
inline constexpr uint64_t kGenerationJustCreated = 1;

// Flags of the node (superblock flags).
// The disk holds one moment of the data, not a half-done resync (R17).
inline constexpr uint32_t kNodeConsistent = 1u << 0;
// No newer copy was known when it was last attached.
inline constexpr uint32_t kNodeWasUpToDate = 1u << 1;
// A newer copy is known to exist (R18).
inline constexpr uint32_t kNodeOutdated = 1u << 2;
// Primary since before the last attach: set at attach = crashed primary.
inline constexpr uint32_t kNodePrimary = 1u << 3;
// In use; set at attach = not stopped cleanly.
inline constexpr uint32_t kNodeAttached = 1u << 4;
// Crashed as primary and no peer was told yet.
inline constexpr uint32_t kNodeCrashedPrimary = 1u << 5;

// Flags of a peer slot.
// Bound to a peer's identity: tracked.
inline constexpr uint32_t kSlotInUse = 1u << 0;
// The whole map counts as dirty; its blocks need not be read (R8).
inline constexpr uint32_t kSlotAllDirty = 1u << 1;
// The peer was told, or is known, to be outdated.
inline constexpr uint32_t kSlotPeerOutdated = 1u << 2;
// The resync under way with it is a full one.
inline constexpr uint32_t kSlotFullSync = 1u << 3;
// The peer was the last primary known, or the source of a resync since then: its content counts.
inline constexpr uint32_t kSlotPeerPrimary = 1u << 4;
// The source has offered its generation to the target and does not know yet whether it took it
// over: the peer may share it (R7).
inline constexpr uint32_t kSlotSyncEnding = 1u << 5;
// The peer lost its disk and works on this copy: it shares the current generation, while B says
// what its disk had.
inline constexpr uint32_t kSlotServed = 1u << 6;

struct PeerSlot {
  Uuid node_id;  // who; all zero when free
  uint32_t flags = 0;
  // B: the generation last shared with it, from which its map counts; 0 = shares the current one.
  uint64_t bitmap_generation = 0;
  uint64_t last_generation = 0;  // the peer's current generation when last seen
  char name[32] = {};  // the peer's, in the config when last seen, for people; NUL-padded UTF-8
};

struct Superblock {
  uint64_t serial = 0;
  Uuid metadata_id;  // random, made by create; map and log blocks carry its first 8 bytes
  Uuid node_id;      // this node's identity for this volume
  uint32_t flags = 0;
  Placement placement = Placement::kEnd;
  uint32_t block_bytes = kSectorSize;  // the backing's logical block when created
  uint64_t device_bytes = 0;           // of the backing device when created
  uint64_t data_offset = 0;            // bytes
  uint64_t meta_offset = 0;            // bytes, on the metadata device
  Geometry geometry;
  uint64_t current = kGenerationJustCreated;    // C
  std::array<uint64_t, kHistory> history = {};  // H, newest first
  std::array<PeerSlot, kMaxPeerSlots> slots = {};
  uint32_t node_slot = 0;  // which activity log ring is this node's
  // Blocks of this node's ring with a lower transaction number count as never written: raising it
  // empties the log in one superblock write (R13). The slot table is empty before this transaction.
  uint64_t log_start_number = 1;
  uint64_t created_unix_s = 0;  // for people only
  char name[64] = {};           // volume name at create, for people only

  // Move a generation to the front of the history (0 and 1 are not kept).
  void push_history(uint64_t generation);
  // What map and log blocks carry of `metadata_id`.
  uint64_t short_id() const;
};

// What is wrong with the fields, as parse_superblock() would say it, or nothing.
std::optional<std::string> check_superblock(const Superblock& sb);

// Little-endian image of 4,096 bytes with CRC32C. The superblock has to pass check_superblock().
void encode_superblock(const Superblock& sb, uint32_t copy, std::span<uint8_t, kBlockSize> out);

enum class SuperblockError : uint8_t {
  kNone = 0,
  kBlank,    // all zero
  kForeign,  // no magic of ours
  kVersionNewer,
  kVersionOlder,
  kChecksum,
  kGeometry,  // fields out of range, or not consistent with each other
};
// METADATA_BLANK, METADATA_FOREIGN, METADATA_VERSION or METADATA_DAMAGED; not for kNone.
const char* error_code(SuperblockError error);
struct SuperblockParse {
  SuperblockError error = SuperblockError::kNone;
  std::string message;  // names what was found and what was expected
  uint32_t copy = 0;    // which of the two copies the block says it is
  Superblock superblock;
};
// Looks at magic, then version, then checksum, then every field, and says the first thing that is
// wrong. `superblock` counts only with kNone; with kGeometry it holds what was read, for dump-md.
SuperblockParse parse_superblock(std::span<const uint8_t, kBlockSize> block);

}  // namespace tidemark
