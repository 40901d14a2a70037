// SimChecks of test/sim/machine.ts.
#include "checks.h"

#include <algorithm>
#include <stdexcept>

#include "addon/argument.h"
#include "machine_object.h"
#include "pair.h"

namespace tidemark::sim {
namespace {

using addon::ArgumentReader;

Napi::Value chunk_array(Napi::Env env, const std::vector<uint32_t>& chunks) {
  Napi::Uint32Array array = Napi::Uint32Array::New(env, chunks.size());
  std::copy(chunks.begin(), chunks.end(), array.Data());
  return array;
}

// `check(reader, pair)` gives the value; what it throws becomes an exception.
template <typename Check>
Napi::Value with_pair(const Napi::CallbackInfo& info, const char* name, Check check) {
  const Napi::Env env = info.Env();
  ArgumentReader reader(info, name);
  MachineObject* a = MachineObject::of(reader, reader.argument(0, "a"));
  MachineObject* b = MachineObject::of(reader, reader.argument(1, "b"));
  if (a == nullptr || b == nullptr) return env.Undefined();
  try {
    return check(reader, Pair::of(a->machine(), b->machine()));
  } catch (const std::exception& exception) {
    throw_error(env, std::string(name) + ": " + exception.what());
    return env.Undefined();
  }
}

Napi::Value differing(const Napi::CallbackInfo& info) {
  return with_pair(info, "differing", [](ArgumentReader& reader, Pair& pair) {
    return chunk_array(reader.env(), pair.differing());
  });
}

Napi::Value uncovered(const Napi::CallbackInfo& info) {
  return with_pair(info, "uncovered", [](ArgumentReader& reader, Pair& pair) {
    return chunk_array(reader.env(), pair.uncovered());
  });
}

Napi::Value uncovered_after_crash(const Napi::CallbackInfo& info) {
  return with_pair(info, "uncoveredAfterCrash", [](ArgumentReader& reader, Pair& pair) {
    const auto seed = static_cast<uint64_t>(
        reader.integer(reader.argument(2, "seed"), 0, int64_t{addon::kIntegerMax}));
    const bool cut_a = reader.boolean(reader.argument(3, "cutA"));
    const bool cut_b = reader.boolean(reader.argument(4, "cutB"));
    if (reader.failed()) return reader.env().Undefined();
    return chunk_array(reader.env(), pair.uncovered_after_crash(seed, cut_a, cut_b));
  });
}

Napi::Value explain(const Napi::CallbackInfo& info) {
  return with_pair(info, "explain", [](ArgumentReader& reader, Pair& pair) -> Napi::Value {
    const auto chunk =
        static_cast<uint64_t>(reader.integer(reader.argument(2, "chunk"), 0, UINT32_MAX));
    if (reader.failed()) return reader.env().Undefined();
    return Napi::String::New(reader.env(), pair.explain(chunk));
  });
}

}  // namespace

void define_checks(Napi::Env env, Napi::Object exports) {
  exports.Set("differing", Napi::Function::New(env, differing, "differing"));
  exports.Set("uncovered", Napi::Function::New(env, uncovered, "uncovered"));
  exports.Set("uncoveredAfterCrash",
              Napi::Function::New(env, uncovered_after_crash, "uncoveredAfterCrash"));
  exports.Set("explain", Napi::Function::New(env, explain, "explain"));
}

}  // namespace tidemark::sim
