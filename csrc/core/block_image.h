// What every codec of on-disk and on-wire structures shares: images are plain structs without
// padding, copied as they lie, so the host has to be little-endian, and a CRC32C is taken with its
// own field as zero.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

#include "core/crc32c.h"

namespace tidemark {

static_assert(
    std::endian::native == std::endian::little,
    "images are little-endian and copied as they are: a big-endian host needs swaps here");

// True when every byte is zero: the block was never written since `create` zeroed it.
bool is_blank(std::span<const uint8_t> bytes);

template <typename Image>
void store_image(const Image& image, uint8_t* out) {
  static_assert(std::is_trivially_copyable_v<Image> && std::is_standard_layout_v<Image>);
  std::memcpy(out, &image, sizeof image);
}

template <typename Image>
Image load_image(const uint8_t* bytes) {
  static_assert(std::is_trivially_copyable_v<Image> && std::is_standard_layout_v<Image>);
  Image image;
  std::memcpy(&image, bytes, sizeof image);
  return image;
}

// CRC32C of `bytes` with the four bytes at `crc_at` taken as zero.
uint32_t crc32c_without_field(std::span<const uint8_t> bytes, size_t crc_at);

}  // namespace tidemark
