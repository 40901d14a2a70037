#include "core/map_block.h"

#include <cassert>

#include "core/block_image.h"

namespace tidemark {
namespace {

constexpr char kMagic[8] = {'T', 'I', 'D', 'E', 'M', 'A', 'P', '1'};

struct MapImage {
  char magic[8];
  uint64_t metadata_id;
  uint32_t slot;
  uint32_t chunk_bytes;
  uint64_t index;
  uint64_t first_chunk;
  uint32_t crc;
  uint8_t reserved[20];
  uint64_t words[kMapBlockWords];
};
static_assert(sizeof(MapImage) == kBlockSize);
static_assert(offsetof(MapImage, metadata_id) == 8);
static_assert(offsetof(MapImage, slot) == 16);
static_assert(offsetof(MapImage, chunk_bytes) == 20);
static_assert(offsetof(MapImage, index) == 24);
static_assert(offsetof(MapImage, first_chunk) == 32);
static_assert(offsetof(MapImage, crc) == 40);
static_assert(offsetof(MapImage, reserved) == 44);
static_assert(offsetof(MapImage, words) == kMapBlockHeaderBytes);

}  // namespace

void encode_map_block(const MapBlockName& name, std::span<const uint64_t> words,
                      std::span<uint8_t, kBlockSize> out) {
  assert(words.size() == kMapBlockWords);
  MapImage image{};
  std::memcpy(image.magic, kMagic, sizeof kMagic);
  image.metadata_id = name.metadata_id;
  image.slot = name.slot;
  image.chunk_bytes = name.chunk_bytes;
  image.index = name.index;
  image.first_chunk = name.index * kMapBlockChunks;
  std::memcpy(image.words, words.data(), sizeof image.words);
  image.crc = crc32c(0, &image, sizeof image);  // its own field is zero still
  store_image(image, out.data());
}

MapBlockStatus parse_map_block(const MapBlockName& expected,
                               std::span<const uint8_t, kBlockSize> block,
                               std::span<uint64_t> words) {
  assert(words.size() == kMapBlockWords);
  if (is_blank(block)) return MapBlockStatus::kNeverWritten;
  const auto image = load_image<MapImage>(block.data());
  const bool good = std::memcmp(image.magic, kMagic, sizeof kMagic) == 0 &&
                    image.crc == crc32c_without_field(block, offsetof(MapImage, crc)) &&
                    image.metadata_id == expected.metadata_id && image.slot == expected.slot &&
                    image.chunk_bytes == expected.chunk_bytes && image.index == expected.index &&
                    image.first_chunk == expected.index * kMapBlockChunks &&
                    is_blank(image.reserved);
  if (!good) return MapBlockStatus::kUntrusted;
  std::memcpy(words.data(), image.words, sizeof image.words);
  return MapBlockStatus::kGood;
}

}  // namespace tidemark
