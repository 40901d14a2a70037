// The object behind NativeVolume of lib/binding/native.ts: checks arguments, hands them to the
// engine.
#pragma once

#include <napi.h>

#include <memory>
#include <vector>

#include "addon/argument.h"
#include "addon/session.h"

namespace tidemark::addon {

class VolumeObject : public Napi::ObjectWrap<VolumeObject>, private Session::Listener {
 public:
  // Once per environment; the class is not a global of JavaScript, open() makes its objects.
  static Napi::Function define(Napi::Env env);
  // `addon.open(options, callbacks)`.
  static Napi::Value open(const Napi::CallbackInfo& info);

  explicit VolumeObject(const Napi::CallbackInfo& info);
  ~VolumeObject();

 private:
  Napi::Value status(const Napi::CallbackInfo& info);
  Napi::Value set_limits(const Napi::CallbackInfo& info);
  Napi::Value promote(const Napi::CallbackInfo& info);
  Napi::Value demote(const Napi::CallbackInfo& info);
  Napi::Value invalidate(const Napi::CallbackInfo& info);
  Napi::Value suspend(const Napi::CallbackInfo& info);
  Napi::Value resume(const Napi::CallbackInfo& info);
  Napi::Value outdate_peer(const Napi::CallbackInfo& info);
  Napi::Value start_nbd(const Napi::CallbackInfo& info);
  Napi::Value start_ublk(const Napi::CallbackInfo& info);
  Napi::Value stop_frontend(const Napi::CallbackInfo& info);
  Napi::Value handshake_state(const Napi::CallbackInfo& info);
  Napi::Value link_prepare(const Napi::CallbackInfo& info);
  Napi::Value reset_link_bytes(const Napi::CallbackInfo& info);
  Napi::Value link_start(const Napi::CallbackInfo& info);
  Napi::Value link_stop(const Napi::CallbackInfo& info);
  Napi::Value send_control(const Napi::CallbackInfo& info);
  Napi::Value feed(const Napi::CallbackInfo& info);
  Napi::Value outgoing(const Napi::CallbackInfo& info);
  Napi::Value consumed(const Napi::CallbackInfo& info);
  Napi::Value take_socket(const Napi::CallbackInfo& info);
  Napi::Value drop_socket(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);

  // False: the volume is closed and an exception is pending.
  bool usable(Napi::Env env);
  Napi::Value call(Napi::Env env, const std::function<void(Engine&, const Reply&)>& start);

  void hear_events(std::vector<Event> events) override;
  void hear_outgoing() override;
  void hear_room() override;
  void hold(bool waiting) override;
  void run_callback(const char* name, std::initializer_list<napi_value> arguments);

  std::shared_ptr<Session> session_;
  Limits limits_;
  // Of the send ring's whole memory, so that a part of it costs one small object (outgoing()).
  Napi::Reference<Napi::ArrayBuffer> memory_;
  const uint8_t* memory_base_ = nullptr;
};

}  // namespace tidemark::addon
