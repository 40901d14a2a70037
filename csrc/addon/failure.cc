#include "addon/failure.h"

namespace tidemark::addon {
namespace {

napi_value make_string(napi_env env, const std::string& text) {
  napi_value value = nullptr;
  napi_create_string_utf8(env, text.data(), text.size(), &value);
  return value;
}

}  // namespace

Failure Failure::of(const EngineError& error) {
  return {FailureKind::kError, error.code, error.message, error.error_number, error.syscall};
}

Failure Failure::closed(const std::string& volume) {
  Failure failure;
  failure.code = "CLOSED";
  failure.message = "volume " + volume + " is closed; open it again to use it";
  return failure;
}

napi_value make_error(napi_env env, const Failure& failure) {
  napi_value code = make_string(env, failure.code);
  napi_value message = make_string(env, failure.message);
  napi_value error = nullptr;
  if (code == nullptr || message == nullptr) return nullptr;
  switch (failure.kind) {
    case FailureKind::kError:
      napi_create_error(env, code, message, &error);
      break;
    case FailureKind::kTypeError:
      napi_create_type_error(env, code, message, &error);
      break;
    case FailureKind::kRangeError:
      napi_create_range_error(env, code, message, &error);
      break;
  }
  if (error == nullptr) return nullptr;
  if (failure.error_number != 0) {
    // Negative, as in Node's own errors, so that util.getSystemErrorName() takes it.
    napi_value number = nullptr;
    napi_create_int32(env, -failure.error_number, &number);
    napi_set_named_property(env, error, "errno", number);
  }
  if (!failure.syscall.empty()) {
    napi_set_named_property(env, error, "syscall", make_string(env, failure.syscall));
  }
  return error;
}

void throw_failure(napi_env env, const Failure& failure) {
  napi_value error = make_error(env, failure);
  if (error != nullptr) napi_throw(env, error);
}

}  // namespace tidemark::addon
