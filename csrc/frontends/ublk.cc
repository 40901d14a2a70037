#include "frontends/ublk.h"

#include <cassert>
#include <utility>

#include "frontends/ublk_node.h"

namespace tidemark {
namespace {

UblkShape shape_of(const FrontendHost& host) {
  return {.volume_bytes = host.volume_bytes(),
          .block_bytes = host.block_bytes(),
          .can_discard = host.can_discard(),
          .fast_zeroes = host.fast_zeroes()};
}

}  // namespace

UblkFrontend::UblkFrontend(FrontendHost& host, const UblkOptions& options, UblkHooks hooks)
    : host_(host),
      options_(options),
      shape_(shape_of(host)),
      hooks_(std::move(hooks)),
      failure_reader_([this] { return queue_failure(); }),
      gate_(std::make_shared<UblkGate>(host)),
      queue_(host, this,
             {.ended = [this] { queue_ended(); },
              .tag_failed = [this](const std::string& why) { tag_failed(why); }}),
      thread_(gate_) {}

UblkFrontend::~UblkFrontend() { gate_->close(); }

void UblkFrontend::start(FrontendHost& host, const UblkOptions& options, StartDone done,
                         UblkHooks hooks) {
  std::string wrong = ublk_options_problem(options);
  if (wrong.empty()) wrong = ublk_shape_problem(shape_of(host));
  if (!wrong.empty()) {
    host.post([done = std::move(done), wrong] {
      const EngineError error{
          .code = "UBLK_OPTIONS", .error_number = 0, .syscall = "", .message = "ublk: " + wrong};
      done(nullptr, &error);
    });
    return;
  }
  auto* frontend = new UblkFrontend(host, options, std::move(hooks));
  frontend->thread_.run([frontend, done = std::move(done)](UblkControl& control) {
    UblkSetup setup = frontend->setup(control);
    const std::shared_ptr<EngineError> error =
        frontend->options_.recover ? setup.recover() : setup.create();
    frontend->gate_->post([frontend, done, error] {
      std::unique_ptr<UblkFrontend> made(frontend);
      if (error == nullptr) {
        made->serving_ = true;
        done(std::move(made), nullptr);
      } else {
        if (made->queue_.out() == 0) {
          made.reset();
        } else {
          made.release()->orphaned_ = true;  // the volume has requests that it owns
        }
        done(nullptr, error.get());
      }
    });
  });
}

void UblkFrontend::stop(bool force, StopDone done) {
  serving_ = false;
  thread_.run([this, force, done = std::move(done)](UblkControl& control) {
    const std::shared_ptr<EngineError> error = setup(control).stop(force);
    gate_->post([this, done, error] {
      if (error != nullptr && queue_.live() > 0) serving_ = true;
      done(error.get());
    });
  });
}

UblkSetup UblkFrontend::setup(UblkControl& control) {
  return UblkSetup({control, *gate_, queue_, failure_reader_, options_, shape_, hooks_, device_});
}

void UblkFrontend::abandon() {
  serving_ = false;
  gate_->close();
  queue_.abandon();
}

void UblkFrontend::complete(Request* request) {
  queue_.complete(request);
  if (orphaned_ && queue_.out() == 0) gate_->post([this] { delete this; });
}

std::string UblkFrontend::device() const { return ublk_block_path(device_.id); }

bool UblkFrontend::in_use() const { return !ublk_mounts_and_holders(device_.id).empty(); }

void UblkFrontend::queue_ended() {
  if (serving_) report(device() + " was stopped by another process");
  gate_->notify();
}

void UblkFrontend::tag_failed(const std::string& why) {
  {
    const std::lock_guard lock(failure_mutex_);
    if (failure_.empty()) failure_ = why;
  }
  if (serving_) report(device() + ": " + why);
  gate_->notify();
}

// Through a task: what the host does about it may be to destroy this frontend.
void UblkFrontend::report(std::string why) {
  if (std::exchange(reported_, true)) return;
  gate_->post([this, why = std::move(why)] { host_.frontend_failed(why); });
}

std::string UblkFrontend::queue_failure() {
  const std::lock_guard lock(failure_mutex_);
  return failure_;
}

}  // namespace tidemark
