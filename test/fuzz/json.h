// Whether a text is JSON (RFC 8259). What it says does not matter here.
#pragma once

#include <cctype>
#include <string_view>

namespace tidemark::fuzz {

class JsonCheck {
 public:
  static bool is_json(std::string_view text) {
    JsonCheck check(text);
    return check.value(0) && check.space() && check.rest_.empty();
  }

 private:
  static constexpr int kDepthMax = 32;
  explicit JsonCheck(std::string_view text) : rest_(text) {}

  bool space() {
    while (!rest_.empty() && (rest_[0] == ' ' || rest_[0] == '\n')) rest_.remove_prefix(1);
    return true;
  }
  bool word(std::string_view expected) {
    if (!rest_.starts_with(expected)) return false;
    rest_.remove_prefix(expected.size());
    return true;
  }
  bool value(int depth) {
    space();
    if (rest_.empty() || depth > kDepthMax) return false;
    switch (rest_[0]) {
      case '{':
        return list('{', '}', [&] { return text() && space() && word(":") && value(depth + 1); });
      case '[':
        return list('[', ']', [&] { return value(depth + 1); });
      case '"':
        return text();
      default:
        return word("true") || word("false") || word("null") || number();
    }
  }
  template <typename Item>
  bool list(char open, char close, Item item) {
    word(std::string_view(&open, 1));
    space();
    if (word(std::string_view(&close, 1))) return true;
    for (;;) {
      space();
      if (!item()) return false;
      space();
      if (word(std::string_view(&close, 1))) return true;
      if (!word(",")) return false;
    }
  }
  // Whole numbers only: the dump has no others.
  bool number() {
    size_t digits = 0;
    while (digits < rest_.size() && std::isdigit(static_cast<unsigned char>(rest_[digits]))) {
      ++digits;
    }
    const bool leading_zero = digits > 1 && rest_[0] == '0';
    rest_.remove_prefix(digits);
    return digits > 0 && !leading_zero;
  }
  bool text() {
    if (!word("\"")) return false;
    while (!rest_.empty()) {
      const auto c = static_cast<unsigned char>(rest_[0]);
      rest_.remove_prefix(1);
      if (c == '"') return true;
      if (c < 0x20) return false;
      if (c != '\\') continue;
      if (rest_.empty()) return false;
      const char escaped = rest_[0];
      rest_.remove_prefix(1);
      if (escaped == 'u') {
        if (rest_.size() < 4) return false;
        for (int i = 0; i < 4; ++i) {
          if (!std::isxdigit(static_cast<unsigned char>(rest_[static_cast<size_t>(i)])))
            return false;
        }
        rest_.remove_prefix(4);
      } else if (std::string_view("\"\\/bfnrt").find(escaped) == std::string_view::npos) {
        return false;
      }
    }
    return false;
  }

  std::string_view rest_;
};

}  // namespace tidemark::fuzz
