// SimChecks of test/sim/machine.ts: coverage between two machines, as JavaScript asks for it.
#pragma once

#include <napi.h>

namespace tidemark::sim {

void define_checks(Napi::Env env, Napi::Object exports);

}  // namespace tidemark::sim
