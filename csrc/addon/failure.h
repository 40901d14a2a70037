// Failures on their way to JavaScript: an Error with a stable `code`, and `errno` and `syscall`
// where the system gave them. lib/binding/addon.ts turns them into TidemarkError.
#pragma once

#include <node_api.h>

#include <string>

#include "engine/error.h"

namespace tidemark::addon {

enum class FailureKind { kError, kTypeError, kRangeError };

struct Failure {
  FailureKind kind = FailureKind::kError;
  std::string code;
  std::string message;
  int error_number = 0;  // positive errno, or 0
  std::string syscall;

  static Failure of(const EngineError& error);
  // Of a method of a closed volume, or of a promise that close() overtook.
  static Failure closed(const std::string& volume);
};

// nullptr when JavaScript cannot run any more.
napi_value make_error(napi_env env, const Failure& failure);
void throw_failure(napi_env env, const Failure& failure);

}  // namespace tidemark::addon
