// What a fuzzer's input says, field by field. Past its end everything is zero, so that every input
// means something and short ones stay useful.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

namespace tidemark::fuzz {

class Input {
 public:
  explicit Input(std::span<const uint8_t> bytes) : bytes_(bytes) {}

  bool empty() const { return bytes_.empty(); }
  // At most `count` bytes; fewer at the end.
  std::span<const uint8_t> take(size_t count) {
    const std::span<const uint8_t> out = bytes_.first(std::min(count, bytes_.size()));
    bytes_ = bytes_.subspan(out.size());
    return out;
  }
  std::span<const uint8_t> rest() { return take(bytes_.size()); }

  // Little-endian.
  template <typename T>
  T get() {
    static_assert(std::is_trivially_copyable_v<T>);
    T value{};
    const std::span<const uint8_t> from = take(sizeof value);
    if (!from.empty()) std::memcpy(&value, from.data(), from.size());
    return value;
  }
  uint8_t byte() { return get<uint8_t>(); }
  bool flag() { return (byte() & 1) != 0; }
  // 0 <= result < bound, bound > 0; from as few bytes as the bound needs.
  uint64_t below(uint64_t bound) {
    return (bound <= 256 ? byte() : bound <= 65536 ? get<uint16_t>() : get<uint64_t>()) % bound;
  }
  // Numbers where arithmetic goes wrong: small, about a power of two, about the end of a type.
  uint64_t number() {
    const uint8_t kind = byte();
    switch (kind % 6) {
      case 0:
        return kind / 6;
      case 1:
        return (uint64_t{1} << (byte() % 64)) - 1 + kind / 6 % 3;
      case 2:
        return UINT64_MAX - kind / 6;
      case 3:
        return UINT32_MAX - kind / 6;
      case 4:
        return get<uint16_t>();
      default:
        return get<uint64_t>();
    }
  }

 private:
  std::span<const uint8_t> bytes_;
};

// Writes over parts of an image: a place, how many bytes, and what.
inline void patch(Input* input, std::span<uint8_t> image) {
  const size_t at = input->below(image.size());
  const uint8_t kind = input->byte();
  const std::span<uint8_t> field = image.subspan(at);
  if (kind < 192) {
    // A field of 1, 2, 4 or 8 bytes.
    const uint64_t value = input->number();
    std::memcpy(field.data(), &value, std::min<size_t>(field.size(), size_t{1} << kind % 4));
  } else if (kind < 240) {
    const std::span<const uint8_t> bytes = input->take(kind - 191);
    std::copy_n(bytes.begin(), std::min(bytes.size(), field.size()), field.begin());
  } else {
    std::fill_n(field.begin(), std::min<size_t>(field.size(), size_t{1} << (kind - 240) % 13),
                input->byte());
  }
}

}  // namespace tidemark::fuzz

// What libFuzzer calls.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
