// JSON text in the making, for what dump-md tells.
#pragma once

#include <cstdint>
#include <string>

namespace tidemark {

// An object or an array: members with commas between them. Which of the two is said at the end.
class Json {
 public:
  void number(const char* key, uint64_t value) { raw(key, std::to_string(value)); }
  void flag(const char* key, bool value) { raw(key, value ? "true" : "false"); }
  void text(const char* key, const std::string& value) { raw(key, quoted(value)); }
  // `value` is JSON.
  void raw(const char* key, const std::string& value) { item(quoted(key) + ": " + value); }
  void item(const std::string& value);
  std::string object() const { return "{" + members_ + "}"; }
  std::string array() const { return "[" + members_ + "]"; }

  // `text` is UTF-8; quotes, backslashes and control characters in it are escaped.
  static std::string quoted(const std::string& text);

 private:
  std::string members_;
};

}  // namespace tidemark
