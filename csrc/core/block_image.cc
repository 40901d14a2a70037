#include "core/block_image.h"

#include <cassert>

namespace tidemark {

bool is_blank(std::span<const uint8_t> bytes) {
  // Equal to itself shifted by one byte, and the first byte is zero: one memcmp at full speed.
  if (bytes.empty()) return true;
  return bytes[0] == 0 && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0;
}

uint32_t crc32c_without_field(std::span<const uint8_t> bytes, size_t crc_at) {
  constexpr uint8_t kZero[sizeof(uint32_t)] = {};
  assert(crc_at + sizeof kZero <= bytes.size());
  const size_t after = crc_at + sizeof kZero;
  uint32_t crc = crc32c(0, bytes.data(), crc_at);
  crc = crc32c(crc, kZero, sizeof kZero);
  return crc32c(crc, bytes.data() + after, bytes.size() - after);
}

}  // namespace tidemark
