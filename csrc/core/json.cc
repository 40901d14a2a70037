#include "core/json.h"

#include <cstdio>

namespace tidemark {

void Json::item(const std::string& value) {
  if (!members_.empty()) members_ += ", ";
  members_ += value;
}

std::string Json::quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04x", byte);
      out += escaped;
    } else {
      out += c;
    }
  }
  return out + '"';
}

}  // namespace tidemark
