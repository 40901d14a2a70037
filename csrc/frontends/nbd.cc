#include "frontends/nbd.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace tidemark {
namespace {

constexpr uint64_t kNegotiationUs = 10'000'000;  // a client that takes longer is cut off
constexpr uint64_t kFinishUs = 1'000'000;        // for requests under way, at a stop
constexpr long long kTickNs = 100'000'000;
constexpr uint32_t kConnectionsMax = 1024;
constexpr uint32_t kQueueDepthMax = 4096;

std::string check_options(const NbdOptions& options) {
  const auto range = [](const char* what, uint32_t value, uint32_t max) -> std::string {
    if (value >= 1 && value <= max) return "";
    return std::string(what) + " is " + std::to_string(value) + ": out of range (1.." +
           std::to_string(max) + ")";
  };
  if (options.export_name.size() > nbd::kNameMax) {
    return "the export's name has " + std::to_string(options.export_name.size()) +
           " bytes: out of range (0.." + std::to_string(nbd::kNameMax) + ")";
  }
  std::string wrong = range("the number of connections", options.max_connections, kConnectionsMax);
  if (wrong.empty()) wrong = range("the queue depth", options.queue_depth, kQueueDepthMax);
  return wrong;
}

}  // namespace

NbdFrontend::NbdFrontend(FrontendHost& host, const NbdOptions& options)
    : host_(host), options_(options) {
  export_.name = options.export_name;
  export_.bytes = host.volume_bytes();
  // One volume serves all connections, and its flush covers every write that was answered, whoever
  // sent it: several connections are safe.
  export_.flags = nbd::kHasFlags | nbd::kSendFlush | nbd::kSendFua | nbd::kSendWriteZeroes |
                  nbd::kSendFastZero | nbd::kCanMultiConn;
  if (host.can_discard()) export_.flags |= nbd::kSendTrim;
  export_.block_min = 1;
  export_.block_preferred = std::max(4096u, host.block_bytes());
  const size_t largest = std::min<size_t>(nbd::kPayloadMax, host.buffer_bytes_max());
  export_.block_max = static_cast<uint32_t>(largest / 4096 * 4096);
  limits_ = {options.queue_depth, largest};
  accept_.server = timer_.server = this;
  accept_.done = [](Completion* self, int32_t result, uint32_t) {
    auto* operation = static_cast<Operation*>(self);
    operation->busy = operation->cancelled = false;
    operation->server->accepted(result);
  };
  timer_.done = [](Completion* self, int32_t, uint32_t) {
    auto* operation = static_cast<Operation*>(self);
    operation->busy = operation->cancelled = false;
    operation->server->tick();
  };
}

NbdFrontend::~NbdFrontend() = default;

std::unique_ptr<NbdFrontend> NbdFrontend::start(FrontendHost& host, const NbdOptions& options,
                                                EngineError* error) {
  if (const std::string wrong = check_options(options); !wrong.empty()) {
    *error = {"NBD_OPTIONS", 0, "", wrong};
    return nullptr;
  }
  std::unique_ptr<NbdFrontend> server(new NbdFrontend(host, options));
  if (!server->socket_.open(options, error)) return nullptr;
  server->accept();
  return server;
}

size_t NbdFrontend::open_connections() const {
  return static_cast<size_t>(std::count_if(connections_.begin(), connections_.end(),
                                           [](const auto& each) { return !each->closed(); }));
}

bool NbdFrontend::in_use() const { return open_connections() > 0; }

// Each client's part of the arena; one part stays free for whoever comes next.
void NbdFrontend::share() {
  limits_.buffer_bytes = host_.buffer_bytes_max() / (open_connections() + 1);
}

void NbdFrontend::accept() {
  // Beyond the bound clients wait in the socket's backlog.
  if (accept_.busy || stopping_ || paused_ || open_connections() >= options_.max_connections)
    return;
  accept_.busy = true;
  io_uring_sqe* sqe = host_.ring().sqe(&accept_);
  sqe->opcode = IORING_OP_ACCEPT;
  sqe->fd = socket_.fd();
  sqe->accept_flags = SOCK_CLOEXEC;
}

void NbdFrontend::accepted(int32_t result) {
  if (result >= 0 && stopping_) {
    ::close(result);
  } else if (result >= 0) {
    if (socket_.tcp()) {
      const int one = 1;
      setsockopt(result, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    connections_.push_back(std::make_unique<NbdConnection>(host_, this, export_, limits_, result));
    share();
    arm_timer();
  } else if (!stopping_ && result != -EINTR && result != -EAGAIN && result != -ECONNABORTED) {
    paused_ = true;  // no descriptors, no memory
    arm_timer();
  }
  accept();
}

// Ticks only while somebody negotiates, accepting pauses, or a stop has a deadline.
void NbdFrontend::arm_timer() {
  if (timer_.busy) return;
  timer_.busy = true;
  tick_.tv_nsec = kTickNs;
  io_uring_sqe* sqe = host_.ring().sqe(&timer_);
  sqe->opcode = IORING_OP_TIMEOUT;
  sqe->fd = -1;
  sqe->addr = reinterpret_cast<uint64_t>(&tick_);
  sqe->len = 1;
}

void NbdFrontend::tick() {
  if (stopping_ && !stopped_) return;  // abandoned, or over
  if (stopping_ && socket_.fd() < 0 && open_connections() == 0) return;
  const uint64_t now = host_.now_us();
  bool needed = paused_ || stopping_;
  paused_ = false;
  for (const auto& connection : connections_) {
    if (connection->negotiating()) {
      needed = true;
      if (now - connection->started_us() >= kNegotiationUs) connection->cut();
    }
    if (stopping_ && now >= cut_us_) connection->cut();
  }
  accept();
  if (needed) arm_timer();
}

void NbdFrontend::complete(Request* request) {
  auto* command = static_cast<NbdConnection::Command*>(request);
  command->connection->complete(command);
}

void NbdFrontend::turn_end() {
  bool finished = false;
  for (const auto& connection : connections_) {
    connection->turn_end();
    finished |= connection->finished();
  }
  if (finished) {
    std::erase_if(connections_, [](const auto& each) { return each->finished(); });
    share();
  }
  accept();
  if (stopping_) settle();
}

void NbdFrontend::cancel(Operation& operation) {
  if (!operation.busy || operation.cancelled) return;
  operation.cancelled = true;
  io_uring_sqe* sqe = host_.ring().sqe(nullptr);
  sqe->opcode = IORING_OP_ASYNC_CANCEL;
  sqe->fd = -1;
  sqe->addr = reinterpret_cast<uint64_t>(static_cast<Completion*>(&operation));
}

void NbdFrontend::stop(bool force, std::function<void(const EngineError*)> done) {
  if (in_use() && !force) {
    const EngineError error{"NBD_BUSY", EBUSY, "",
                            "'" + device() + "' has " + std::to_string(open_connections()) +
                                " clients; disconnect them, or force it"};
    return done(&error);
  }
  stopping_ = true;
  stopped_ = std::move(done);
  cut_us_ = host_.now_us() + kFinishUs;
  cancel(accept_);
  for (const auto& connection : connections_) connection->drain();
  arm_timer();  // also brings the turn that finishes an idle server's stop
}

void NbdFrontend::abandon() {
  stopping_ = true;
  cancel(accept_);
  cancel(timer_);
  for (const auto& connection : connections_) connection->cut();
}

void NbdFrontend::settle() {
  if (accept_.busy || open_connections() > 0 || !stopped_) return;
  socket_.close();
  if (timer_.busy) {
    cancel(timer_);
    return;
  }
  const auto stopped = std::exchange(stopped_, nullptr);
  stopped(nullptr);
}

}  // namespace tidemark
