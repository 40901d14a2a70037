// Large blocks are used again instead of being given back: fresh pages for the disks of each run
// would cost more than the run.
#include <cstdlib>
#include <map>
#include <new>
#include <vector>

namespace {

constexpr std::size_t kLargeBytes = 256u << 10;
constexpr std::size_t kKeptBytesMax = 8u << 20;

std::size_t kept_bytes = 0;

// By size; the sizes are few. Never destroyed: objects with static storage still use it.
auto& free_blocks() {
  static auto* blocks = new std::map<std::size_t, std::vector<void*>>;
  return *blocks;
}

}  // namespace

void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  if (bytes >= kLargeBytes) {
    if (const auto found = free_blocks().find(bytes);
        found != free_blocks().end() && !found->second.empty()) {
      void* block = found->second.back();
      found->second.pop_back();
      kept_bytes -= bytes;
      return block;
    }
  }
  return std::malloc(bytes != 0 ? bytes : 1);
}

void* operator new(std::size_t bytes) {
  void* block = ::operator new(bytes, std::nothrow);
  if (block == nullptr) throw std::bad_alloc();
  return block;
}

void operator delete(void* block) noexcept { std::free(block); }

void operator delete(void* block, std::size_t bytes) noexcept {
  if (block != nullptr && bytes >= kLargeBytes && kept_bytes + bytes <= kKeptBytesMax) {
    kept_bytes += bytes;
    free_blocks()[bytes].push_back(block);
  } else {
    std::free(block);
  }
}
