#include "addon/volume_object.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include "addon/environment.h"
#include "addon/options.h"
#include "addon/value.h"
#include "core/frame.h"

namespace tidemark::addon {
namespace {

constexpr size_t kReasonBytesMax = 1024;  // of a text for people

// An errno of the core's and the code that programs see. The message is the core's own.
struct ErrnoCode {
  int error;
  const char* code;
};
constexpr ErrnoCode kLinkCodes[] = {
    {ESTALE, "LINK_STALE"},   {EBUSY, "LINK_BUSY"}, {ENOSPC, "NO_SLOT"}, {EPERM, "PRIMARY_TARGET"},
    {ECANCELED, "LINK_DOWN"}, {EIO, "IO"},          {EINVAL, "ARGUMENT"}};
constexpr ErrnoCode kVolumeCodes[] = {{EBUSY, "BUSY"},
                                      {EPERM, "REFUSED"},
                                      {EIO, "IO"},
                                      {ENOENT, "NO_SLOT"},
                                      {ENOTCONN, "NOT_CONNECTED"}};

template <size_t kCount>
Done answer_with(const Reply& reply, const ErrnoCode (&codes)[kCount]) {
  return [reply, &codes](int error, const std::string& message) {
    if (error == 0) {
      reply.resolve();
      return;
    }
    Failure failure;
    failure.code = "VOLUME";
    failure.message = message;
    failure.error_number = -error;
    for (const ErrnoCode& known : codes) {
      if (known.error == -error) failure.code = known.code;
    }
    reply.reject(std::move(failure));
  };
}

std::function<napi_value(napi_env)> boolean_maker(bool value) {
  return [value](napi_env env) -> napi_value { return Napi::Boolean::New(env, value); };
}

Engine::FrontendDone answer_device(const Reply& reply) {
  return [reply](const EngineError* error, const std::string& device) {
    if (error != nullptr) {
      reply.reject(Failure::of(*error));
    } else {
      reply.resolve(
          [device](napi_env env) -> napi_value { return Napi::String::New(env, device); });
    }
  };
}

}  // namespace

// --- making ---

Napi::Function VolumeObject::define(Napi::Env env) {
  return DefineClass(env, "NativeVolume",
                     {
                         InstanceMethod("status", &VolumeObject::status),
                         InstanceMethod("setLimits", &VolumeObject::set_limits),
                         InstanceMethod("promote", &VolumeObject::promote),
                         InstanceMethod("demote", &VolumeObject::demote),
                         InstanceMethod("invalidate", &VolumeObject::invalidate),
                         InstanceMethod("suspend", &VolumeObject::suspend),
                         InstanceMethod("resume", &VolumeObject::resume),
                         InstanceMethod("outdatePeer", &VolumeObject::outdate_peer),
                         InstanceMethod("startNbd", &VolumeObject::start_nbd),
                         InstanceMethod("startUblk", &VolumeObject::start_ublk),
                         InstanceMethod("stopFrontend", &VolumeObject::stop_frontend),
                         InstanceMethod("handshakeState", &VolumeObject::handshake_state),
                         InstanceMethod("linkPrepare", &VolumeObject::link_prepare),
                         InstanceMethod("resetLinkBytes", &VolumeObject::reset_link_bytes),
                         InstanceMethod("linkStart", &VolumeObject::link_start),
                         InstanceMethod("linkStop", &VolumeObject::link_stop),
                         InstanceMethod("sendControl", &VolumeObject::send_control),
                         InstanceMethod("feed", &VolumeObject::feed),
                         InstanceMethod("outgoing", &VolumeObject::outgoing),
                         InstanceMethod("consumed", &VolumeObject::consumed),
                         InstanceMethod("takeSocket", &VolumeObject::take_socket),
                         InstanceMethod("dropSocket", &VolumeObject::drop_socket),
                         InstanceMethod("close", &VolumeObject::close),
                     });
}

Napi::Value VolumeObject::open(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  ArgumentReader reader(info, "open");
  const OpenOptions options = read_open_options(reader, reader.argument(0, "options"));
  const Argument callbacks = reader.argument(1, "callbacks");
  for (const char* name : {"events", "outgoing", "room"}) {
    reader.function(reader.property(callbacks, name));
  }
  if (reader.failed()) return env.Undefined();

  AttachReport report;
  Failure failure;
  std::shared_ptr<Session> session = Session::open(env, options, &report, &failure);
  if (session == nullptr) {
    throw_failure(env, failure);
    return env.Undefined();
  }
  Environment& environment = Environment::of(env);
  environment.opened = session;
  const Napi::Object object = environment.volume_class.New({});
  environment.opened = nullptr;
  if (object.IsEmpty()) {
    session->close(true);
    return env.Undefined();
  }
  // The object holds the callbacks, not the session: else callbacks that use the volume would keep
  // it from the garbage collector for ever.
  const napi_property_descriptor properties[] = {
      {"callbacks", nullptr, nullptr, nullptr, nullptr, callbacks.value, napi_default, nullptr},
      {"attach", nullptr, nullptr, nullptr, nullptr, make_attach_report(env, report),
       napi_enumerable, nullptr},
  };
  napi_define_properties(env, object, 2, properties);
  return object;
}

VolumeObject::VolumeObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<VolumeObject>(info) {
  session_ = std::exchange(Environment::of(info.Env()).opened, nullptr);
  if (session_ == nullptr) {
    Failure failure;
    failure.kind = FailureKind::kTypeError;
    failure.code = "ARGUMENT";
    failure.message = "NativeVolume is not constructed: open(options, callbacks) makes volumes";
    throw_failure(info.Env(), failure);
    return;
  }
  session_->set_listener(this);
}

VolumeObject::~VolumeObject() {
  if (session_ == nullptr) return;
  session_->set_listener(nullptr);
  if (!session_->closed()) session_->close(true);
}

// --- calls ---

bool VolumeObject::usable(Napi::Env env) {
  if (!session_->closed()) return true;
  throw_failure(env, Failure::closed(session_->name()));
  return false;
}

Napi::Value VolumeObject::call(Napi::Env env,
                               const std::function<void(Engine&, const Reply&)>& start) {
  return Napi::Value(env, session_->call(start));
}

Napi::Value VolumeObject::status(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!usable(env)) return env.Undefined();
  return make_status(env, session_->status(), session_->engine().device());
}

Napi::Value VolumeObject::set_limits(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  ArgumentReader reader(info, "setLimits");
  Limits limits = limits_;
  read_limits(reader, reader.argument(0, "limits"), &limits);
  if (reader.failed() || !usable(env)) return env.Undefined();
  limits_ = limits;
  session_->engine().call([limits](Volume& volume) { volume.set_limits(limits); });
  return env.Undefined();
}

Napi::Value VolumeObject::promote(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  ArgumentReader reader(info, "promote");
  const bool force = reader.boolean(reader.argument(0, "force"));
  if (reader.failed() || !usable(env)) return env.Undefined();
  return call(env, [force](Engine& engine, const Reply& reply) {
    engine.call([force, reply](Volume& volume) {
      volume.promote(force, answer_with(reply, kVolumeCodes));
    });
  });
}

Napi::Value VolumeObject::demote(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!usable(env)) return env.Undefined();
  return call(env, [](Engine& engine, const Reply& reply) {
    engine.call([reply](Volume& volume) { volume.demote(answer_with(reply, kVolumeCodes)); });
  });
}

Napi::Value VolumeObject::invalidate(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  ArgumentReader reader(info, "invalidate");
  const Argument peer = reader.argument(0, "peerId");
  const Uuid peer_id = reader.uuid(peer);
  if (reader.failed() || !usable(env)) return env.Undefined();
  const std::string peer_text = peer.value.ToString().Utf8Value();
  return call(env, [peer_id, peer_text](Engine& engine, const Reply& reply) {
    engine.call([peer_id, peer_text, reply](Volume& volume) {
      const uint32_t slot = volume.handshake_state(peer_id).slot;
      if (slot != kNoSlot) {
        volume.invalidate(slot, answer_with(reply, kVolumeCodes));
        return;
      }
      Failure failure;
      failure.code = "NO_SLOT";
      failure.message = "no slot of this volume is bound to peer " + peer_text +
                        "; a peer gets one at its first handshake";
      reply.reject(std::move(failure));
    });
  });
}

Napi::Value VolumeObject::suspend(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  ArgumentReader reader(info, "suspend");
  const std::string why = reader.text(reader.argument(0, "why"), 0, kReasonBytesMax);
  if (reader.failed() || !usable(env)) return env.Undefined();
  return call(env, [why](Engine& engine, const Reply& reply) {
    engine.call([why, reply](Volume& volume) {
      volume.suspend(why);
      reply.resolve();
    });
  });
}

Napi::Value VolumeObject::resume(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!usable(env)) return env.Undefined();
  return call(env, [](Engine& engine, const Reply& reply) {
    engine.call([reply](Volume& volume) {
      volume.resume();
      reply.resolve();
    });
  });
}

Napi::Value VolumeObject::outdate_peer(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!usable(env)) return env.Undefined();
  return call(env, [](Engine& engine, const Reply& reply) {
    engine.call([reply](Volume& volume) { volume.outdate_peer(answer_with(reply, kVolumeCodes)); });
  });
}

// --- frontends ---

Napi::Value VolumeObject::start_nbd(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  ArgumentReader reader(info, "startNbd");
  const NbdOptions options = read_nbd_options(reader, reader.argument(0, "options"));
  if (reader.failed() || !usable(env)) return env.Undefined();
  return call(env, [&options](Engine& engine, const Reply& reply) {
    engine.start_nbd(options, answer_device(reply));
  });
}

Napi::Value VolumeObject::start_ublk(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  ArgumentReader reader(info, "startUblk");
  const UblkOptions options = read_ublk_options(reader, reader.argument(0, "options"));
  if (reader.failed() || !usable(env)) return env.Undefined();
  return call(env, [&options](Engine& engine, const Reply& reply) {
    engine.start_ublk(options, answer_device(reply));
  });
}

Napi::Value VolumeObject::stop_frontend(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  ArgumentReader reader(info, "stopFrontend");
  const bool force = reader.boolean(reader.argument(0, "force"));
  if (reader.failed() || !usable(env)) return env.Undefined();
  return call(env, [force](Engine& engine, const Reply& reply) {
    engine.stop_frontend(force, [reply](const EngineError* error, const std::string&) {
      error == nullptr ? reply.resolve() : reply.reject(Failure::of(*error));
    });
  });
}

// --- the link ---

Napi::Value VolumeObject::handshake_state(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  ArgumentReader reader(info, "handshakeState");
  const Uuid peer_id = reader.uuid(reader.argument(0, "peerId"));
  if (reader.failed() || !usable(env)) return env.Undefined();
  return call(env, [peer_id](Engine& engine, const Reply& reply) {
    engine.call([peer_id, reply](Volume& volume) {
      reply.resolve([state = volume.handshake_state(peer_id)](napi_env env) -> napi_value {
        return make_handshake_state(env, state);
      });
    });
  });
}

Napi::Value VolumeObject::link_prepare(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  ArgumentReader reader(info, "linkPrepare");
  const LinkParams params = read_link_params(reader, reader.argument(0, "params"));
  if (reader.failed() || !usable(env)) return env.Undefined();
  return call(env, [&params](Engine& engine, const Reply& reply) {
    engine.call([params, reply](Volume& volume) {
      volume.link_prepare(params, answer_with(reply, kLinkCodes));
    });
  });
}

Napi::Value VolumeObject::link_start(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!usable(env)) return env.Undefined();
  return call(env, [](Engine& engine, const Reply& reply) {
    engine.call([reply](Volume& volume) { reply.resolve(boolean_maker(volume.link_start())); });
  });
}

Napi::Value VolumeObject::link_stop(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  ArgumentReader reader(info, "linkStop");
  const std::string why = reader.text(reader.argument(0, "why"), 0, kReasonBytesMax);
  if (reader.failed() || !usable(env)) return env.Undefined();
  session_->engine().call([why](Volume& volume) { volume.link_stop(why); });
  return env.Undefined();
}

Napi::Value VolumeObject::send_control(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  ArgumentReader reader(info, "sendControl");
  const std::string json = reader.text(reader.argument(0, "json"), 1, kFramePayloadMax);
  if (reader.failed() || !usable(env)) return env.Undefined();
  return call(env, [&json](Engine& engine, const Reply& reply) {
    engine.call(
        [json, reply](Volume& volume) { reply.resolve(boolean_maker(volume.send_control(json))); });
  });
}

// --- the link's bytes ---

Napi::Value VolumeObject::reset_link_bytes(const Napi::CallbackInfo& info) {
  if (usable(info.Env())) session_->engine().reset_link_bytes();
  return info.Env().Undefined();
}

Napi::Value VolumeObject::feed(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  ArgumentReader reader(info, "feed");
  const std::span<const uint8_t> bytes = reader.bytes(reader.argument(0, "bytes"));
  if (reader.failed() || !usable(env)) return env.Undefined();
  return Napi::Number::New(env, static_cast<double>(session_->engine().feed(bytes)));
}

Napi::Value VolumeObject::outgoing(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!usable(env)) return env.Undefined();
  if (memory_.IsEmpty()) {
    RingMemory memory = session_->engine().send_memory();
    memory_base_ = memory.base;
    // Views may outlive the volume: whoever finalises the buffer lets go of the memory.
    using Owner = std::shared_ptr<const void>;
    const Napi::ArrayBuffer buffer = Napi::ArrayBuffer::New(
        env, const_cast<uint8_t*>(memory.base), memory.bytes,
        [](Napi::BasicEnv, void*, Owner* owner) { delete owner; }, new Owner(memory.owner));
    if (buffer.IsEmpty()) return env.Undefined();
    memory_ = Napi::Reference<Napi::ArrayBuffer>::New(buffer, 1);
  }
  const std::span<const uint8_t> unread = session_->engine().outgoing();
  const size_t offset = unread.empty() ? 0 : static_cast<size_t>(unread.data() - memory_base_);
  return Napi::Uint8Array::New(env, unread.size(), memory_.Value(), offset);
}

Napi::Value VolumeObject::consumed(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!usable(env)) return env.Undefined();
  ArgumentReader reader(info, "consumed");
  const auto unread = static_cast<int64_t>(session_->engine().outgoing().size());
  const auto bytes = static_cast<size_t>(reader.integer(reader.argument(0, "bytes"), 0, unread));
  if (!reader.failed()) session_->engine().consumed(bytes);
  return env.Undefined();
}

Napi::Value VolumeObject::take_socket(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  ArgumentReader reader(info, "takeSocket");
  const auto fd = static_cast<int>(reader.integer(reader.argument(0, "fd"), 0, INT32_MAX));
  if (reader.failed() || !usable(env)) return env.Undefined();
  return call(env, [fd](Engine& engine, const Reply& reply) {
    const int error = engine.take_socket(fd, [reply](const std::string& why) {
      reply.resolve([why](napi_env to) -> napi_value { return Napi::String::New(to, why); });
    });
    if (error == 0) return;
    Failure failure;
    failure.code = "SOCKET";
    failure.message =
        "cannot use socket " + std::to_string(fd) + " for the link: " + std::strerror(-error);
    failure.error_number = -error;
    reply.reject(std::move(failure));
  });
}

Napi::Value VolumeObject::drop_socket(const Napi::CallbackInfo& info) {
  if (usable(info.Env())) session_->engine().drop_socket();
  return info.Env().Undefined();
}

Napi::Value VolumeObject::close(const Napi::CallbackInfo& info) {
  ArgumentReader reader(info, "close");
  const Argument argument = reader.argument(0, "abandon");
  const bool abandon = !argument.absent() && reader.boolean(argument);
  if (reader.failed()) return info.Env().Undefined();
  return Napi::Value(info.Env(), session_->close(abandon));
}

// --- callbacks ---

void VolumeObject::run_callback(const char* name, std::initializer_list<napi_value> arguments) {
  const Napi::Env env = Env();
  const Napi::Object object = Value();
  if (object.IsEmpty()) return;  // garbage, not yet finalised
  napi_value callbacks = nullptr;
  napi_value function = nullptr;
  napi_value result = nullptr;
  napi_status status = napi_get_named_property(env, object, "callbacks", &callbacks);
  if (status == napi_ok) status = napi_get_named_property(env, callbacks, name, &function);
  if (status == napi_ok) {
    status =
        napi_call_function(env, callbacks, function, arguments.size(), arguments.begin(), &result);
  }
  if (status != napi_pending_exception) return;
  // Node would only warn: what a callback throws is an uncaught exception, as in any event handler.
  napi_value error = nullptr;
  if (napi_get_and_clear_last_exception(env, &error) == napi_ok) napi_fatal_exception(env, error);
}

void VolumeObject::hear_events(std::vector<Event> events) {
  run_callback("events", {make_events(Env(), events)});
}

void VolumeObject::hear_outgoing() { run_callback("outgoing", {}); }

void VolumeObject::hear_room() { run_callback("room", {}); }

void VolumeObject::hold(bool waiting) {
  if (waiting) {
    Ref();
  } else {
    Unref();
  }
}

}  // namespace tidemark::addon
