#include "core/map_block.h"

#include <cassert>

#include "core/block_image.h"

namespace tidemark {
namespace {

constexpr char kMagic[8] = {'T', 'I', 'D', 'E', 'M', 'A', 'P', '1'};

struct MapHeader {
  char magic[8];
  uint64_t metadata_id;
  uint32_t slot;
  uint32_t chunk_bytes;
  uint64_t index;
  uint64_t first_chunk;
  uint32_t crc;
  uint8_t reserved[20];
};
static_assert(sizeof(MapHeader) == kMapBlockHeaderBytes);
static_assert(offsetof(MapHeader, metadata_id) == 8);
static_assert(offsetof(MapHeader, slot) == 16);
static_assert(offsetof(MapHeader, chunk_bytes) == 20);
static_assert(offsetof(MapHeader, index) == 24);
static_assert(offsetof(MapHeader, first_chunk) == 32);
static_assert(offsetof(MapHeader, crc) == 40);
static_assert(offsetof(MapHeader, reserved) == 44);

struct MapImage {
  MapHeader header;
  uint64_t words[kMapBlockWords];
};
static_assert(sizeof(MapImage) == kBlockSize);
static_assert(offsetof(MapImage, words) == kMapBlockHeaderBytes);

}  // namespace

void encode_map_block(const MapBlockName& name, std::span<const uint64_t> words,
                      std::span<uint8_t, kBlockSize> out) {
  assert(words.size() == kMapBlockWords);
  MapImage image{};
  MapHeader& header = image.header;
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.metadata_id = name.metadata_id;
  header.slot = name.slot;
  header.chunk_bytes = name.chunk_bytes;
  header.index = name.index;
  header.first_chunk = name.index * kMapBlockChunks;
  std::memcpy(image.words, words.data(), sizeof image.words);
  header.crc = crc32c(0, &image, sizeof image);  // its own field is zero still
  store_image(image, out.data());
}

MapBlockStatus parse_map_block(const MapBlockName& expected,
                               std::span<const uint8_t, kBlockSize> block,
                               std::span<uint64_t> words) {
  assert(words.size() == kMapBlockWords);
  if (is_blank(block)) return MapBlockStatus::kNeverWritten;
  const auto header = load_image<MapHeader>(block.data());
  const bool good = std::memcmp(header.magic, kMagic, sizeof kMagic) == 0 &&
                    header.crc == crc32c_without_field(block, offsetof(MapHeader, crc)) &&
                    header.metadata_id == expected.metadata_id && header.slot == expected.slot &&
                    header.chunk_bytes == expected.chunk_bytes && header.index == expected.index &&
                    header.first_chunk == expected.index * kMapBlockChunks &&
                    is_blank(header.reserved);
  if (!good) return MapBlockStatus::kUntrusted;
  std::memcpy(words.data(), block.data() + kMapBlockHeaderBytes, words.size_bytes());
  return MapBlockStatus::kGood;
}

}  // namespace tidemark
