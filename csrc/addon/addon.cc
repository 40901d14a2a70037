// The entry point of the Node-API add-on.

#include <napi.h>

namespace tidemark {
namespace {

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("version", Napi::String::New(env, TIDEMARK_VERSION));
  return exports;
}

}  // namespace
}  // namespace tidemark

static Napi::Object tidemark_init(Napi::Env env, Napi::Object exports) {
  return tidemark::init(env, exports);
}

NODE_API_MODULE(tidemark, tidemark_init)
