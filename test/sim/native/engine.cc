// csrc/engine/engine.h over a simulated process.
#include "engine/engine.h"

#include <utility>

#include "opening.h"
#include "process.h"

namespace tidemark {

namespace sim {
Opening& opening() {
  static Opening one;
  return one;
}
}  // namespace sim

class Engine::Impl {
 public:
  std::shared_ptr<sim::Process> process;
};

std::unique_ptr<Engine> Engine::open(const EngineOptions& options, EngineCallbacks callbacks,
                                     bool suspended, AttachReport* report, EngineError* error) {
  sim::Machine* machine = sim::opening().machine;
  if (machine == nullptr) {
    *error = {"OPTIONS", 0, "", "a simulated volume is opened by a SimMachine's addon"};
    return nullptr;
  }
  if (machine->process != nullptr) {
    *error = {"BACKING_LOCKED", 0, "", "'" + options.backing_path + "' is in use"};
    return nullptr;
  }
  // R12: the locks are waited for, and last as long as the writes of a killed daemon.
  machine->late.land_all(machine->random);
  auto process = std::make_shared<sim::Process>(*machine, options.name, std::move(callbacks));
  if (!process->start(suspended, report, error)) return nullptr;
  machine->process = process;
  std::unique_ptr<Engine> engine(new Engine);
  engine->impl_ = std::make_unique<Impl>();
  engine->impl_->process = std::move(process);
  return engine;
}

Engine::~Engine() = default;

void Engine::call(std::function<void(Volume&)> task) { impl_->process->post(std::move(task)); }

void Engine::start_nbd(const NbdOptions& options, FrontendDone done) {
  const std::string& path = options.socket_path;
  impl_->process->start_frontend("NBD", true, path.empty() ? "127.0.0.1:10809" : path,
                                 std::move(done));
}

void Engine::start_ublk(const UblkOptions& options, FrontendDone done) {
  const int id = options.device_id < 0 ? 0 : options.device_id;
  impl_->process->start_frontend("ublk", !options.recover, "/dev/ublkb" + std::to_string(id),
                                 std::move(done));
}

void Engine::stop_frontend(bool force, FrontendDone done) {
  impl_->process->stop_frontend(force, std::move(done));
}

VolumeStatus Engine::status(bool) const { return impl_->process->status(); }
std::string Engine::device() const { return impl_->process->device(); }
size_t Engine::feed(std::span<const uint8_t> bytes) { return impl_->process->feed(bytes); }
std::span<const uint8_t> Engine::outgoing() { return impl_->process->outgoing(); }
void Engine::consumed(size_t bytes) { impl_->process->consumed(bytes); }
RingMemory Engine::send_memory() const { return impl_->process->send_memory(); }
// Streams of the simulated network are no sockets.
int Engine::take_socket(int, SocketEnded) { return -ENOTSOCK; }
void Engine::drop_socket() {}
size_t Engine::peer_event_bytes(const Event&) { return 0; }
void Engine::heard(size_t) {}
void Engine::reset_link_bytes() { impl_->process->reset_link_bytes(); }
void Engine::close(bool abandon) { impl_->process->close(abandon); }

}  // namespace tidemark
