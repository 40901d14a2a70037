#include "core/superblock.h"

#include <algorithm>
#include <cassert>
#include <cstdio>
#include <cstring>

#include "core/block_image.h"

namespace tidemark {
namespace {

constexpr char kMagic[8] = {'T', 'I', 'D', 'E', 'M', 'R', 'K', '1'};

constexpr uint32_t kNodeFlags = kNodeConsistent | kNodeWasUpToDate | kNodeOutdated | kNodePrimary |
                                kNodeAttached | kNodeCrashedPrimary;
constexpr uint32_t kSlotFlags = kSlotInUse | kSlotAllDirty | kSlotPeerOutdated | kSlotFullSync |
                                kSlotPeerPrimary | kSlotSyncEnding | kSlotServed;

struct SlotImage {
  uint8_t node_id[16];
  uint32_t flags;
  uint32_t reserved0;
  uint64_t bitmap_generation;
  uint64_t last_generation;
  char name[32];
  uint8_t reserved[56];
};
static_assert(sizeof(SlotImage) == 128);
static_assert(offsetof(SlotImage, flags) == 16);
static_assert(offsetof(SlotImage, reserved0) == 20);
static_assert(offsetof(SlotImage, bitmap_generation) == 24);
static_assert(offsetof(SlotImage, last_generation) == 32);
static_assert(offsetof(SlotImage, name) == 40);
static_assert(offsetof(SlotImage, reserved) == 72);

struct SuperblockImage {
  char magic[8];
  uint32_t version;
  uint32_t crc;
  uint64_t serial;
  uint32_t copy;
  uint32_t flags;
  uint8_t metadata_id[16];
  uint8_t node_id[16];
  uint32_t placement;
  uint32_t block_bytes;
  uint64_t device_bytes;
  uint64_t data_offset;
  uint64_t meta_offset;
  uint64_t volume_bytes;
  uint32_t chunk_bytes;
  uint32_t extent_bytes;
  uint32_t log_extents;
  uint32_t peer_slots;
  uint32_t node_slots;
  uint32_t node_slot;
  uint64_t log_start_number;
  uint64_t created_unix_s;
  uint64_t current;
  uint64_t history[kHistory];
  char name[64];
  uint8_t reserved0[232];
  SlotImage slots[kMaxPeerSlots];
  uint8_t reserved1[2560];
};
static_assert(sizeof(SuperblockImage) == kBlockSize);
static_assert(offsetof(SuperblockImage, version) == 8);
static_assert(offsetof(SuperblockImage, crc) == 12);
static_assert(offsetof(SuperblockImage, serial) == 16);
static_assert(offsetof(SuperblockImage, copy) == 24);
static_assert(offsetof(SuperblockImage, flags) == 28);
static_assert(offsetof(SuperblockImage, metadata_id) == 32);
static_assert(offsetof(SuperblockImage, node_id) == 48);
static_assert(offsetof(SuperblockImage, placement) == 64);
static_assert(offsetof(SuperblockImage, block_bytes) == 68);
static_assert(offsetof(SuperblockImage, device_bytes) == 72);
static_assert(offsetof(SuperblockImage, data_offset) == 80);
static_assert(offsetof(SuperblockImage, meta_offset) == 88);
static_assert(offsetof(SuperblockImage, volume_bytes) == 96);
static_assert(offsetof(SuperblockImage, chunk_bytes) == 104);
static_assert(offsetof(SuperblockImage, extent_bytes) == 108);
static_assert(offsetof(SuperblockImage, log_extents) == 112);
static_assert(offsetof(SuperblockImage, peer_slots) == 116);
static_assert(offsetof(SuperblockImage, node_slots) == 120);
static_assert(offsetof(SuperblockImage, node_slot) == 124);
static_assert(offsetof(SuperblockImage, log_start_number) == 128);
static_assert(offsetof(SuperblockImage, created_unix_s) == 136);
static_assert(offsetof(SuperblockImage, current) == 144);
static_assert(offsetof(SuperblockImage, history) == 152);
static_assert(offsetof(SuperblockImage, name) == 216);
static_assert(offsetof(SuperblockImage, reserved0) == 280);
static_assert(offsetof(SuperblockImage, slots) == 512);
static_assert(offsetof(SuperblockImage, reserved1) == 1536);

std::string hex(uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

// UTF-8 without overlong forms, surrogates and control characters: names go to terminals and JSON.
bool is_clean_utf8(const char* text, size_t length) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(text);
  for (size_t at = 0; at < length;) {
    const uint8_t lead = bytes[at];
    if (lead < 0x80) {
      if (lead < 0x20 || lead == 0x7f) return false;
      ++at;
      continue;
    }
    const size_t size = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4 || length - at < size) return false;
    uint32_t point = lead & (0x7fu >> size);
    for (size_t i = 1; i < size; ++i) {
      if ((bytes[at + i] & 0xc0) != 0x80) return false;
      point = (point << 6) | (bytes[at + i] & 0x3fu);
    }
    constexpr uint32_t kLeast[5] = {0, 0, 0x80, 0x800, 0x10000};
    if (point < kLeast[size] || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff)) {
      return false;
    }
    at += size;
  }
  return true;
}

// A name ends with a NUL within its field, and only NULs follow.
bool is_name(std::span<const char> field) {
  const auto end = std::find(field.begin(), field.end(), '\0');
  if (end == field.end()) return false;
  if (!std::all_of(end, field.end(), [](char c) { return c == '\0'; })) return false;
  return is_clean_utf8(field.data(), static_cast<size_t>(end - field.begin()));
}

bool is_free(const PeerSlot& slot) {
  return slot.node_id.is_zero() && slot.bitmap_generation == 0 && slot.last_generation == 0 &&
         std::all_of(std::begin(slot.name), std::end(slot.name), [](char c) { return c == 0; });
}

std::optional<std::string> check_slots(const Superblock& sb) {
  for (uint32_t i = 0; i < kMaxPeerSlots; ++i) {
    const PeerSlot& slot = sb.slots[i];
    const std::string which = "peer slot " + std::to_string(i);
    if ((slot.flags & ~kSlotFlags) != 0) {
      return which + " has flags " + hex(slot.flags) + ": known are " + hex(kSlotFlags);
    }
    if (!is_name(slot.name)) return which + " has a name that is not NUL-padded UTF-8";
    if ((slot.flags & kSlotInUse) == 0) {
      // 'All dirty' is how a slot that was never used is told (R8).
      if (!is_free(slot) || (slot.flags & ~kSlotAllDirty) != 0) {
        return which + " is not in use but holds a peer's state";
      }
      continue;
    }
    if (i >= sb.geometry.peer_slots) {
      return which + " is in use: there are only " + std::to_string(sb.geometry.peer_slots);
    }
    if (slot.node_id.is_zero()) return which + " is in use but names no node";
    if (slot.node_id == sb.node_id) return which + " names this node itself as the peer";
    for (uint32_t j = 0; j < i; ++j) {
      if ((sb.slots[j].flags & kSlotInUse) != 0 && sb.slots[j].node_id == slot.node_id) {
        return which + " names the same node as peer slot " + std::to_string(j);
      }
    }
  }
  return std::nullopt;
}

// Data and metadata lie on the device and apart from each other.
std::optional<std::string> check_places(const Superblock& sb) {
  const Layout layout = make_layout(sb.geometry);
  const uint64_t meta_bytes = layout.bytes();
  const auto wrong = [&](const std::string& what) {
    return what + " (device " + std::to_string(sb.device_bytes) + " bytes, volume " +
           std::to_string(sb.geometry.volume_bytes) + " at " + std::to_string(sb.data_offset) +
           ", metadata " + std::to_string(meta_bytes) + " at " + std::to_string(sb.meta_offset) +
           ")";
  };
  if (sb.data_offset % sb.block_bytes != 0 || sb.meta_offset % kBlockSize != 0) {
    return wrong("data or metadata does not begin on a block");
  }
  if (sb.data_offset > sb.device_bytes ||
      sb.geometry.volume_bytes > sb.device_bytes - sb.data_offset) {
    return wrong("the volume does not fit on its device");
  }
  if (sb.placement == Placement::kExternal) {
    if (sb.data_offset != 0) return wrong("external metadata, but the volume is not at 0");
    return std::nullopt;
  }
  if (sb.meta_offset > sb.device_bytes || meta_bytes > sb.device_bytes - sb.meta_offset) {
    return wrong("the metadata does not fit on its device");
  }
  switch (sb.placement) {
    case Placement::kEnd:
      if (sb.meta_offset + meta_bytes != sb.device_bytes / kBlockSize * kBlockSize) {
        return wrong("the metadata does not end with the device's last whole block");
      }
      break;
    case Placement::kStart:
      if (sb.meta_offset != 0) return wrong("the metadata does not begin at 0");
      break;
    default:
      break;
  }
  const bool data_first = sb.data_offset + sb.geometry.volume_bytes <= sb.meta_offset;
  const bool meta_first = sb.meta_offset + meta_bytes <= sb.data_offset;
  if (!data_first && !meta_first) return wrong("volume and metadata overlap");
  if ((sb.placement == Placement::kStart) != meta_first || (data_first && sb.data_offset != 0)) {
    return wrong("volume and metadata are not in the order that their placement says");
  }
  return std::nullopt;
}

Superblock from_image(const SuperblockImage& image) {
  Superblock sb;
  sb.serial = image.serial;
  std::memcpy(sb.metadata_id.bytes, image.metadata_id, sizeof image.metadata_id);
  std::memcpy(sb.node_id.bytes, image.node_id, sizeof image.node_id);
  sb.flags = image.flags;
  sb.placement = static_cast<Placement>(image.placement);
  sb.block_bytes = image.block_bytes;
  sb.device_bytes = image.device_bytes;
  sb.data_offset = image.data_offset;
  sb.meta_offset = image.meta_offset;
  sb.geometry.volume_bytes = image.volume_bytes;
  sb.geometry.chunk_bytes = image.chunk_bytes;
  sb.geometry.extent_bytes = image.extent_bytes;
  sb.geometry.log_extents = image.log_extents;
  sb.geometry.peer_slots = image.peer_slots;
  sb.geometry.node_slots = image.node_slots;
  sb.node_slot = image.node_slot;
  sb.log_start_number = image.log_start_number;
  sb.created_unix_s = image.created_unix_s;
  sb.current = image.current;
  std::copy_n(image.history, kHistory, sb.history.begin());
  std::memcpy(sb.name, image.name, sizeof sb.name);
  for (uint32_t i = 0; i < kMaxPeerSlots; ++i) {
    std::memcpy(sb.slots[i].node_id.bytes, image.slots[i].node_id, 16);
    sb.slots[i].flags = image.slots[i].flags;
    sb.slots[i].bitmap_generation = image.slots[i].bitmap_generation;
    sb.slots[i].last_generation = image.slots[i].last_generation;
    std::memcpy(sb.slots[i].name, image.slots[i].name, sizeof sb.slots[i].name);
  }
  return sb;
}

// Reserved bytes are zero: what is written there belongs to a format that this version does not
// know.
bool reserved_is_zero(const SuperblockImage& image) {
  if (!is_blank(image.reserved0) || !is_blank(image.reserved1)) return false;
  return std::all_of(std::begin(image.slots), std::end(image.slots), [](const SlotImage& slot) {
    return slot.reserved0 == 0 && is_blank(slot.reserved);
  });
}

std::string found_magic(const char (&magic)[8]) {
  std::string text;
  for (char c : magic) {
    char two[4];
    std::snprintf(two, sizeof two, "%02x", static_cast<uint8_t>(c));
    text += two;
  }
  return text;
}

}  // namespace

void Superblock::push_history(uint64_t generation) {
  if (generation == kGenerationNone || generation == kGenerationJustCreated) return;
  // One that is known already comes to the front, and pushes nothing out.
  const auto at = std::find(history.begin(), history.end() - 1, generation);
  std::copy_backward(history.begin(), at, at + 1);
  history[0] = generation;
}

uint64_t Superblock::short_id() const {
  uint64_t word = 0;
  std::memcpy(&word, metadata_id.bytes, sizeof word);
  return word;
}

const char* error_code(SuperblockError error) {
  switch (error) {
    case SuperblockError::kBlank:
      return "METADATA_BLANK";
    case SuperblockError::kForeign:
      return "METADATA_FOREIGN";
    case SuperblockError::kVersionNewer:
    case SuperblockError::kVersionOlder:
      return "METADATA_VERSION";
    case SuperblockError::kNone:
    case SuperblockError::kChecksum:
    case SuperblockError::kGeometry:
      break;
  }
  return "METADATA_DAMAGED";
}

std::optional<std::string> check_superblock(const Superblock& sb) {
  if (sb.metadata_id.is_zero()) return "the metadata has no identity";
  if (sb.node_id.is_zero()) return "the node has no identity";
  if ((sb.flags & ~kNodeFlags) != 0) {
    return "the node has flags " + hex(sb.flags) + ": known are " + hex(kNodeFlags);
  }
  if (static_cast<uint8_t>(sb.placement) > static_cast<uint8_t>(Placement::kExternal)) {
    return "the placement is " + std::to_string(static_cast<uint8_t>(sb.placement)) +
           ": out of range (0..3)";
  }
  if (sb.block_bytes != kSectorSize && sb.block_bytes != kBlockSize) {
    return "the backing's logical block has " + std::to_string(sb.block_bytes) +
           " bytes: only 512 and 4096 are known";
  }
  if (auto error = check_geometry(sb.geometry)) return error;
  if (sb.geometry.volume_bytes % sb.block_bytes != 0) {
    return "the volume's size in bytes is " + std::to_string(sb.geometry.volume_bytes) +
           ": not a multiple of the backing's logical block, " + std::to_string(sb.block_bytes);
  }
  if (auto error = check_places(sb)) return error;
  if (sb.node_slot >= sb.geometry.node_slots) {
    return "the node's log slot is " + std::to_string(sb.node_slot) + ": there are only " +
           std::to_string(sb.geometry.node_slots);
  }
  if (sb.log_start_number == 0) return "the log starts with transaction 0: the first is 1";
  if (sb.current == kGenerationNone) return "the current generation is 0: that means none";
  if (!is_name(sb.name)) return "the volume's name is not NUL-padded UTF-8";
  return check_slots(sb);
}

void encode_superblock(const Superblock& sb, uint32_t copy, std::span<uint8_t, kBlockSize> out) {
  assert(copy < 2);
  assert(!check_superblock(sb));
  SuperblockImage image{};
  std::memcpy(image.magic, kMagic, sizeof kMagic);
  image.version = kFormatVersion;
  image.serial = sb.serial;
  image.copy = copy;
  image.flags = sb.flags;
  std::memcpy(image.metadata_id, sb.metadata_id.bytes, sizeof image.metadata_id);
  std::memcpy(image.node_id, sb.node_id.bytes, sizeof image.node_id);
  image.placement = static_cast<uint32_t>(sb.placement);
  image.block_bytes = sb.block_bytes;
  image.device_bytes = sb.device_bytes;
  image.data_offset = sb.data_offset;
  image.meta_offset = sb.meta_offset;
  image.volume_bytes = sb.geometry.volume_bytes;
  image.chunk_bytes = sb.geometry.chunk_bytes;
  image.extent_bytes = sb.geometry.extent_bytes;
  image.log_extents = sb.geometry.log_extents;
  image.peer_slots = sb.geometry.peer_slots;
  image.node_slots = sb.geometry.node_slots;
  image.node_slot = sb.node_slot;
  image.log_start_number = sb.log_start_number;
  image.created_unix_s = sb.created_unix_s;
  image.current = sb.current;
  std::copy_n(sb.history.begin(), kHistory, image.history);
  std::memcpy(image.name, sb.name, sizeof image.name);
  for (uint32_t i = 0; i < kMaxPeerSlots; ++i) {
    std::memcpy(image.slots[i].node_id, sb.slots[i].node_id.bytes, 16);
    image.slots[i].flags = sb.slots[i].flags;
    image.slots[i].bitmap_generation = sb.slots[i].bitmap_generation;
    image.slots[i].last_generation = sb.slots[i].last_generation;
    std::memcpy(image.slots[i].name, sb.slots[i].name, sizeof image.slots[i].name);
  }
  image.crc = crc32c(0, &image, sizeof image);  // its own field is zero still
  store_image(image, out.data());
}

SuperblockParse parse_superblock(std::span<const uint8_t, kBlockSize> block) {
  SuperblockParse parse;
  const auto fail = [&](SuperblockError error, std::string message) {
    parse.error = error;
    parse.message = std::move(message);
    return parse;
  };
  if (is_blank(block)) return fail(SuperblockError::kBlank, "the block is all zero: no metadata");
  const auto image = load_image<SuperblockImage>(block.data());
  if (std::memcmp(image.magic, kMagic, sizeof kMagic) != 0) {
    return fail(SuperblockError::kForeign, "no Tidemark superblock: the block begins with bytes " +
                                               found_magic(image.magic) + ", expected " +
                                               found_magic(kMagic) + " (TIDEMRK1)");
  }
  // The version before the checksum: another version may keep its checksum elsewhere.
  if (image.version != kFormatVersion) {
    const bool newer = image.version > kFormatVersion;
    return fail(newer ? SuperblockError::kVersionNewer : SuperblockError::kVersionOlder,
                "the metadata has format version " + std::to_string(image.version) + ", " +
                    (newer ? "newer" : "older") + " than the " + std::to_string(kFormatVersion) +
                    " that this program knows");
  }
  const uint32_t crc = crc32c_without_field(block, offsetof(SuperblockImage, crc));
  if (crc != image.crc) {
    return fail(SuperblockError::kChecksum, "the superblock does not match its checksum: found " +
                                                hex(image.crc) + ", computed " + hex(crc));
  }
  parse.copy = image.copy;
  if (image.copy > 1) {
    return fail(SuperblockError::kGeometry, "the superblock says that it is copy " +
                                                std::to_string(image.copy) +
                                                ": out of range (0..1)");
  }
  if (image.placement > static_cast<uint32_t>(Placement::kExternal)) {
    return fail(SuperblockError::kGeometry,
                "the placement is " + std::to_string(image.placement) + ": out of range (0..3)");
  }
  parse.superblock = from_image(image);
  if (!reserved_is_zero(image)) {
    return fail(SuperblockError::kGeometry, "bytes that this format keeps zero are not");
  }
  if (auto error = check_superblock(parse.superblock)) {
    return fail(SuperblockError::kGeometry, *error);
  }
  return parse;
}

}  // namespace tidemark
