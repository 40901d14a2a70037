// encodeHandshake and parseHandshake of lib/binding/native.ts.
#pragma once

#include <napi.h>

namespace tidemark::addon {

void export_handshake_calls(Napi::Env env, Napi::Object exports);

}  // namespace tidemark::addon
