// What JavaScript gets back: plain objects as lib/binding/native.ts types them.
#pragma once

#include <napi.h>

#include <string>
#include <vector>

#include "core/volume.h"
#include "engine/create.h"
#include "engine/engine.h"

namespace tidemark::addon {

Napi::Object make_attach_report(Napi::Env env, const AttachReport& report);
Napi::Object make_status(Napi::Env env, const VolumeStatus& status, const std::string& device);
Napi::Object make_handshake_state(Napi::Env env, const HandshakeState& state);
Napi::Array make_events(Napi::Env env, const std::vector<Event>& events);
Napi::Object make_create_report(Napi::Env env, const CreateReport& report);

}  // namespace tidemark::addon
