// Reading and checking what JavaScript passes in. Nothing is converted silently: a value has the
// type and range that lib/binding/native.ts says, or a TypeError or RangeError with code ARGUMENT
// names the argument, the value and what is allowed.
#pragma once

#include <napi.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "core/types.h"

namespace tidemark::addon {

inline constexpr uint64_t kIntegerMax = (uint64_t{1} << 53) - 1;  // Number.MAX_SAFE_INTEGER

// A value and how people call it: "bytes", "options.backing", "params.peerHistory[3]".
struct Argument {
  Napi::Value value;
  const char* object = nullptr;
  const char* name = nullptr;
  int64_t index = -1;

  bool absent() const { return value.IsEmpty() || value.IsUndefined(); }
};

// A word of the interface and the enumerator that it stands for.
template <typename Enum>
struct Word {
  Enum value;
  const char* text;
};

// Reads the arguments of one call. After the first failure an exception is pending, failed() is
// true, and every further read gives a harmless value without looking at its argument.
class ArgumentReader {
 public:
  ArgumentReader(const Napi::CallbackInfo& info, const char* function)
      : info_(info), env_(info.Env()), function_(function) {}
  ArgumentReader(const ArgumentReader&) = delete;
  ArgumentReader& operator=(const ArgumentReader&) = delete;

  bool failed() const { return failed_; }
  Napi::Env env() const { return env_; }

  Argument argument(size_t index, const char* name);
  // Checks that `object` is an object. A getter that throws is a failure, with its own exception.
  Argument property(const Argument& object, const char* name);
  uint32_t array_length(const Argument& array, uint32_t max);
  Argument element(const Argument& array, uint32_t index);

  bool boolean(const Argument& argument);
  int64_t integer(const Argument& argument, int64_t min, int64_t max);
  // `max_bytes` as UTF-8.
  std::string text(const Argument& argument, size_t min_bytes, size_t max_bytes);
  std::string path(const Argument& argument);
  uint64_t generation(const Argument& argument);  // 16 hex digits
  Uuid uuid(const Argument& argument);            // 32 hex digits
  std::span<const uint8_t> bytes(const Argument& argument);
  Napi::Function function(const Argument& argument);

  template <typename Enum, size_t kCount>
  Enum word(const Argument& argument, const Word<Enum> (&words)[kCount]) {
    const std::string given = word_text(argument);
    for (const Word<Enum>& word : words) {
      if (given == word.text) return word.value;
    }
    if (!failed_) {
      std::string expected;
      for (const Word<Enum>& word : words) {
        expected += expected.empty() ? "one of '" : ", '";
        expected += word.text;
        expected += '\'';
      }
      range_failure(argument, expected);
    }
    return words[0].value;
  }

  void type_failure(const Argument& argument, const std::string& expected);
  void range_failure(const Argument& argument, const std::string& expected);

 private:
  std::string word_text(const Argument& argument);
  std::string hex(const Argument& argument, size_t digits);
  void failure(const Argument& argument, const std::string& expected, bool range);

  const Napi::CallbackInfo& info_;
  Napi::Env env_;
  const char* function_;
  bool failed_ = false;
};

}  // namespace tidemark::addon
