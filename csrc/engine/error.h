// Why something blocking failed: opening, creating, starting a frontend.
#pragma once

#include <string>

namespace tidemark {

struct EngineError {
  std::string code;      // stable: BACKING_OPEN, BACKING_LOCKED, METADATA_*, RING, ...
  int error_number = 0;  // errno or 0
  std::string syscall;
  std::string message;
};

}  // namespace tidemark
