#include "addon/handshake_calls.h"

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "addon/argument.h"
#include "addon/failure.h"
#include "addon/handshake.h"

namespace tidemark::addon {
namespace {

Napi::Value encode_handshake_frame(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  ArgumentReader reader(info, "encodeHandshake");
  const std::string json = reader.text(reader.argument(0, "json"), 1, kHandshakeBytesMax);
  if (reader.failed()) return env.Undefined();
  const std::vector<uint8_t> frame = encode_handshake(json);
  Napi::Uint8Array bytes = Napi::Uint8Array::New(env, frame.size());
  if (!bytes.IsEmpty()) std::copy(frame.begin(), frame.end(), bytes.Data());
  return bytes;
}

Napi::Value parse_handshake_frame(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  ArgumentReader reader(info, "parseHandshake");
  const std::span<const uint8_t> bytes = reader.bytes(reader.argument(0, "bytes"));
  if (reader.failed()) return env.Undefined();
  const HandshakeParse parse = parse_handshake(bytes);
  if (!parse.error.empty()) {
    Failure failure;
    failure.code = "FRAME";
    failure.message = parse.error;
    throw_failure(env, failure);
    return env.Undefined();
  }
  if (!parse.json.has_value()) return env.Null();
  const Napi::Object frame = Napi::Object::New(env);
  frame.Set("json", Napi::String::New(env, parse.json->data(), parse.json->size()));
  frame.Set("bytes", Napi::Number::New(env, static_cast<double>(parse.bytes)));
  return frame;
}

}  // namespace

void export_handshake_calls(Napi::Env env, Napi::Object exports) {
  exports.Set("encodeHandshake",
              Napi::Function::New(env, encode_handshake_frame, "encodeHandshake"));
  exports.Set("parseHandshake", Napi::Function::New(env, parse_handshake_frame, "parseHandshake"));
}

}  // namespace tidemark::addon
