// Identities and generations as people read them.
#pragma once

#include <cstdint>
#include <string>

#include "core/types.h"

namespace tidemark {

// Lower-case digits, always 16.
inline std::string hex(uint64_t value) {
  std::string text(16, '0');
  for (size_t i = text.size(); i-- > 0; value >>= 4) text[i] = "0123456789abcdef"[value & 15];
  return text;
}

// Lower-case digits, 32, in the order of the bytes.
inline std::string hex(const Uuid& id) {
  std::string text;
  for (const uint8_t byte : id.bytes) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

}  // namespace tidemark
