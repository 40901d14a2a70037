#include "addon/argument.h"

#include <cmath>

#include "addon/failure.h"

namespace tidemark::addon {
namespace {

constexpr size_t kShownBytesMax = 64;   // of a wrong string, in a message
constexpr size_t kPathBytesMax = 4095;  // PATH_MAX without its NUL

// Runs no code of the caller's: objects are named by their kind, not converted.
std::string describe(napi_env env, napi_value value) {
  napi_valuetype type = napi_undefined;
  if (value == nullptr || napi_typeof(env, value, &type) != napi_ok) return "undefined";
  bool is_array = false;
  switch (type) {
    case napi_undefined:
      return "undefined";
    case napi_symbol:
      return "a symbol";
    case napi_function:
      return "a function";
    case napi_object:
      napi_is_array(env, value, &is_array);
      return is_array ? "an array" : "an object";
    case napi_external:
      return "an external value";
    default:
      break;
  }
  napi_value as_text = nullptr;
  size_t bytes = 0;
  if (napi_coerce_to_string(env, value, &as_text) != napi_ok) return "a value";
  char shown[kShownBytesMax + 1];
  napi_get_value_string_utf8(env, as_text, shown, sizeof shown, &bytes);
  std::string text(shown, bytes);
  size_t whole = 0;
  napi_get_value_string_utf8(env, as_text, nullptr, 0, &whole);
  if (whole > bytes) text += "...";
  if (type == napi_string) return "'" + text + "'";
  return type == napi_bigint ? text + "n" : text;
}

std::string full_name(const Argument& argument) {
  std::string name;
  if (argument.object != nullptr) name = std::string(argument.object) + ".";
  name += argument.name;
  if (argument.index >= 0) name += "[" + std::to_string(argument.index) + "]";
  return name;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

void ArgumentReader::failure(const Argument& argument, const std::string& expected, bool range) {
  if (failed_) return;
  failed_ = true;
  Failure failure;
  failure.kind = range ? FailureKind::kRangeError : FailureKind::kTypeError;
  failure.code = "ARGUMENT";
  failure.message = std::string(function_) + "(): " + full_name(argument) + " is " +
                    describe(env_, argument.value) + ", expected " + expected;
  throw_failure(env_, failure);
}

void ArgumentReader::type_failure(const Argument& argument, const std::string& expected) {
  failure(argument, expected, false);
}

void ArgumentReader::range_failure(const Argument& argument, const std::string& expected) {
  failure(argument, expected, true);
}

Argument ArgumentReader::argument(size_t index, const char* name) {
  return {info_[index], nullptr, name, -1};
}

Argument ArgumentReader::property(const Argument& object, const char* name) {
  Argument result{env_.Undefined(), object.name, name, -1};
  if (failed_) return result;
  if (object.absent() || !object.value.IsObject()) {
    type_failure(object, "an object");
    return result;
  }
  napi_value value = nullptr;
  if (napi_get_named_property(env_, object.value, name, &value) != napi_ok) {
    failed_ = true;
    return result;
  }
  result.value = Napi::Value(env_, value);
  return result;
}

uint32_t ArgumentReader::array_length(const Argument& array, uint32_t max) {
  if (failed_) return 0;
  const std::string expected = "an array of at most " + std::to_string(max) + " elements";
  if (array.absent() || !array.value.IsArray()) {
    type_failure(array, expected);
    return 0;
  }
  uint32_t length = 0;
  napi_get_array_length(env_, array.value, &length);
  if (length > max) {
    range_failure(array, expected + ", not " + std::to_string(length));
    return 0;
  }
  return length;
}

Argument ArgumentReader::element(const Argument& array, uint32_t index) {
  Argument result{env_.Undefined(), array.object, array.name, index};
  if (failed_) return result;
  napi_value value = nullptr;
  if (napi_get_element(env_, array.value, index, &value) != napi_ok) {
    failed_ = true;
    return result;
  }
  result.value = Napi::Value(env_, value);
  return result;
}

bool ArgumentReader::boolean(const Argument& argument) {
  if (failed_) return false;
  bool value = false;
  if (argument.absent() || napi_get_value_bool(env_, argument.value, &value) != napi_ok) {
    type_failure(argument, "true or false");
  }
  return value;
}

int64_t ArgumentReader::integer(const Argument& argument, int64_t min, int64_t max) {
  if (failed_) return 0;
  double value = 0;
  const bool is_number =
      !argument.absent() && napi_get_value_double(env_, argument.value, &value) == napi_ok;
  // Written so that NaN fails.
  if (is_number && value >= static_cast<double>(min) && value <= static_cast<double>(max) &&
      std::floor(value) == value) {
    return static_cast<int64_t>(value);
  }
  const std::string expected =
      "an integer from " + std::to_string(min) + " to " + std::to_string(max);
  is_number ? range_failure(argument, expected) : type_failure(argument, expected);
  return 0;
}

std::string ArgumentReader::text(const Argument& argument, size_t min_bytes, size_t max_bytes) {
  if (failed_) return {};
  const std::string expected = "a string of " + std::to_string(min_bytes) + " to " +
                               std::to_string(max_bytes) + " bytes of UTF-8";
  if (argument.absent() || !argument.value.IsString()) {
    type_failure(argument, expected);
    return {};
  }
  size_t bytes = 0;
  if (napi_get_value_string_utf8(env_, argument.value, nullptr, 0, &bytes) != napi_ok ||
      bytes < min_bytes || bytes > max_bytes) {
    range_failure(argument, expected + ", not " + std::to_string(bytes));
    return {};
  }
  std::string value(bytes + 1, '\0');
  napi_get_value_string_utf8(env_, argument.value, value.data(), value.size(), &bytes);
  value.resize(bytes);
  return value;
}

std::string ArgumentReader::path(const Argument& argument) {
  std::string value = text(argument, 1, kPathBytesMax);
  if (value.find('\0') != std::string::npos) range_failure(argument, "a path without a NUL byte");
  return value;
}

std::string ArgumentReader::word_text(const Argument& argument) {
  if (failed_) return {};
  if (argument.absent() || !argument.value.IsString()) {
    type_failure(argument, "a string");
    return {};
  }
  char word[32];
  size_t bytes = 0;
  napi_get_value_string_utf8(env_, argument.value, word, sizeof word, &bytes);
  return std::string(word, bytes);
}

std::string ArgumentReader::hex(const Argument& argument, size_t digits) {
  if (failed_) return {};
  const std::string expected = std::to_string(digits) + " lower-case hexadecimal digits";
  if (argument.absent() || !argument.value.IsString()) {
    type_failure(argument, "a string of " + expected);
    return {};
  }
  // One more than fits says that it is too long.
  char text[40];
  size_t bytes = 0;
  napi_get_value_string_utf8(env_, argument.value, text, sizeof text, &bytes);
  std::string value(text, bytes);
  bool good = bytes == digits;
  for (char c : value) good = good && hex_digit(c) >= 0;
  if (!good) range_failure(argument, expected);
  return good ? value : std::string();
}

uint64_t ArgumentReader::generation(const Argument& argument) {
  uint64_t value = 0;
  for (char c : hex(argument, 16)) value = value << 4 | static_cast<uint64_t>(hex_digit(c));
  return value;
}

Uuid ArgumentReader::uuid(const Argument& argument) {
  Uuid value;
  const std::string digits = hex(argument, 32);
  for (size_t i = 0; i < digits.size(); ++i) {
    value.bytes[i / 2] =
        static_cast<uint8_t>(value.bytes[i / 2] << 4 | static_cast<uint8_t>(hex_digit(digits[i])));
  }
  return value;
}

std::span<const uint8_t> ArgumentReader::bytes(const Argument& argument) {
  if (failed_) return {};
  napi_typedarray_type type = napi_int8_array;
  size_t length = 0;
  void* data = nullptr;
  bool is_array = false;
  if (!argument.absent()) napi_is_typedarray(env_, argument.value, &is_array);
  if (is_array) {
    napi_get_typedarray_info(env_, argument.value, &type, &length, &data, nullptr, nullptr);
  }
  if (!is_array || type != napi_uint8_array) {
    type_failure(argument, "a Uint8Array");
    return {};
  }
  if (data == nullptr) length = 0;
  return {static_cast<const uint8_t*>(data), length};
}

Napi::Function ArgumentReader::function(const Argument& argument) {
  if (!failed_ && (argument.absent() || !argument.value.IsFunction())) {
    type_failure(argument, "a function");
  }
  return failed_ ? Napi::Function() : argument.value.As<Napi::Function>();
}

}  // namespace tidemark::addon
