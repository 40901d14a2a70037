#include "buffers.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "page.h"

namespace tidemark::sim {
namespace {

constexpr uint8_t kSpoilt = 0xdb;
constexpr size_t kSpoiltBytes = 16;  // of each sector: enough for its stamp to be wrong

// Few sizes, so that what one size left serves the next.
size_t rounded(size_t bytes) { return std::bit_ceil(std::max<size_t>(bytes, kPageBytes)); }

// Kept for the next who wants that size: freeing large buffers gives their pages back to the
// kernel, and having them again costs more than a write.
std::unordered_map<size_t, std::vector<uint8_t*>>& free_buffers() {
  static auto* lists = new std::unordered_map<size_t, std::vector<uint8_t*>>();
  return *lists;
}

void spoil(uint8_t* buffer, size_t bytes) {
  for (size_t at = 0; at < bytes; at += kSectorBytes) {
    std::memset(buffer + at, kSpoilt, kSpoiltBytes);
  }
}

}  // namespace

Buffers::~Buffers() {
  for (const auto& [buffer, bytes] : out_) free_buffers()[rounded(bytes)].push_back(buffer);
}

uint8_t* Buffers::get(size_t bytes) {
  std::vector<uint8_t*>& list = free_buffers()[rounded(bytes)];
  uint8_t* buffer = nullptr;
  if (!list.empty()) {
    buffer = list.back();
    list.pop_back();
  } else {
    buffer = static_cast<uint8_t*>(std::aligned_alloc(kPageBytes, rounded(bytes)));
    if (buffer == nullptr) throw std::bad_alloc();
    spoil(buffer, rounded(bytes));
  }
  out_.emplace(buffer, bytes);
  bytes_ += bytes;
  return buffer;
}

std::string Buffers::put(uint8_t* buffer, size_t bytes) {
  const auto found = out_.find(buffer);
  if (found == out_.end()) return "a buffer was given back that was not out";
  if (found->second != bytes) {
    return "a buffer of " + std::to_string(found->second) + " bytes was given back as one of " +
           std::to_string(bytes);
  }
  out_.erase(found);
  bytes_ -= bytes;
  spoil(buffer, bytes);
  free_buffers()[rounded(bytes)].push_back(buffer);
  return {};
}

}  // namespace tidemark::sim
