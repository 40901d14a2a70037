#include "engine/engine.h"

#include <doctest/doctest.h>
#include <linux/magic.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <future>
#include <optional>
#include <utility>

#include "core/frame.h"
#include "engine/create.h"
#include "frame_bytes.h"
#include "frontends/nbd_protocol.h"
#include "temporary.h"

namespace tidemark {
namespace {

constexpr uint64_t kDevice = 64u << 20;

// A blocking NBD client.
class Client {
 public:
  explicit Client(const std::string& path) : fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un name = {};
    name.sun_family = AF_UNIX;
    std::strncpy(name.sun_path, path.c_str(), sizeof name.sun_path - 1);
    REQUIRE(connect(fd_, reinterpret_cast<sockaddr*>(&name), sizeof name) == 0);
    receive(18);
    std::string hello;
    nbd::append(&hello, uint32_t{nbd::kFixedNewstyle | nbd::kNoZeroes});
    nbd::append(&hello, nbd::kOptionMagic);
    nbd::append(&hello, nbd::kOptExportName);
    nbd::append(&hello, uint32_t{0});
    put(hello);
    const std::string answer = receive(10);
    bytes = nbd::load<uint64_t>(reinterpret_cast<const uint8_t*>(answer.data()));
  }
  ~Client() { close(fd_); }

  void send(uint16_t type, uint64_t offset, uint32_t length, const std::string& payload = "",
            uint16_t flags = 0) {
    put(request(type, offset, length, flags) + payload);
  }
  void send_together(size_t count, uint16_t type, uint64_t offset, uint32_t length) {
    std::string out;
    while (count-- > 0) out += request(type, offset, length, 0);
    put(out);
  }
  // The error of the reply.
  uint32_t reply() {
    const std::string header = receive(nbd::kReplyBytes);
    REQUIRE(header.size() == nbd::kReplyBytes);
    return nbd::load<uint32_t>(reinterpret_cast<const uint8_t*>(header.data()) + 4);
  }
  // Shorter when the server closed.
  std::string receive(size_t bytes) {
    std::string data(bytes, '\0');
    size_t got = 0;
    while (got < bytes) {  // MSG_WAITALL may end early without an error or an end
      const ssize_t part = recv(fd_, data.data() + got, bytes - got, MSG_WAITALL);
      if (part < 0 && errno == EINTR) continue;
      if (part <= 0) break;
      got += static_cast<size_t>(part);
    }
    data.resize(got);
    return data;
  }
  uint64_t bytes = 0;

 private:
  static std::string request(uint16_t type, uint64_t offset, uint32_t length, uint16_t flags) {
    std::string out;
    nbd::append(&out, nbd::kRequestMagic);
    nbd::append(&out, flags);
    nbd::append(&out, type);
    nbd::append(&out, uint64_t{42});
    nbd::append(&out, offset);
    nbd::append(&out, length);
    return out;
  }
  void put(const std::string& data) {
    REQUIRE(::send(fd_, data.data(), data.size(), MSG_NOSIGNAL) ==
            static_cast<ssize_t>(data.size()));
  }
  int fd_;
};

// Of no earlier than this call, however long the machine stands still.
VolumeStatus status_of_now(Engine& engine) {
  const uint64_t asked_us = monotonic_us();
  for (;;) {
    const VolumeStatus status = engine.status(true);
    if (status.now_us >= asked_us) return status;
    REQUIRE(monotonic_us() < asked_us + 60'000'000);
  }
}

struct Rig {
  explicit Rig(const char* parent = TemporaryFolder::usual()) : folder(parent) {
    CreateOptions create;
    create.name = "volume";
    create.backing_path = folder.file("disk", kDevice);
    CreateReport made;
    REQUIRE_FALSE(create_volume(create, &made).has_value());
  }
  std::unique_ptr<Engine> open(EngineCallbacks callbacks = {}) {
    EngineOptions options;
    options.name = "volume";
    options.backing_path = folder.path("disk");
    options.lock_timeout_ms = 50;
    options.arena_bytes = 8u << 20;
    options.send_ring_bytes = options.receive_ring_bytes = 4u << 20;
    return Engine::open(options, std::move(callbacks), false, &report, &error);
  }
  // The result of a command of the volume's.
  template <typename Start>
  static int command(Engine& engine, Start start) {
    std::promise<int> promise;
    engine.call([&](Volume& volume) {
      start(volume, [&](int result, const std::string&) { promise.set_value(result); });
    });
    return promise.get_future().get();
  }
  static int promote(Engine& engine) {
    return command(engine, [](Volume& volume, Done done) { volume.promote(true, done); });
  }
  static int demote(Engine& engine) {
    return command(engine, [](Volume& volume, Done done) { volume.demote(done); });
  }
  // The error's code, or nothing.
  template <typename Start>
  static std::string wait(Start start) {
    std::promise<std::string> promise;
    start([&](const EngineError* error, const std::string&) {
      promise.set_value(error == nullptr ? "" : error->code);
    });
    return promise.get_future().get();
  }
  std::string serve(Engine& engine) {
    NbdOptions options;
    options.socket_path = folder.path("socket");
    options.export_name = "volume";
    return wait([&](auto done) { engine.start_nbd(options, done); });
  }
  std::unique_ptr<Engine> open_served() {
    auto engine = open();
    REQUIRE(engine != nullptr);
    REQUIRE(promote(*engine) == 0);
    REQUIRE(serve(*engine) == "");
    return engine;
  }
  static std::string stop(Engine& engine, bool force) {
    return wait([&](auto done) { engine.stop_frontend(force, done); });
  }
  TemporaryFolder folder;
  AttachReport report;
  EngineError error;
};

TEST_CASE("what was written over NBD is on the disk after a clean close") {
  Rig rig;
  auto engine = rig.open_served();
  CHECK(engine->device() == rig.folder.path("socket"));
  const std::string payload = "not aligned to anything";
  {
    Client client(rig.folder.path("socket"));
    CHECK(client.bytes == rig.report.volume_bytes);
    client.send(nbd::kCmdWrite, 12345, static_cast<uint32_t>(payload.size()), payload);
    CHECK(client.reply() == 0);
    client.send(nbd::kCmdFlush, 0, 0);
    CHECK(client.reply() == 0);
    client.send(nbd::kCmdRead, 12345, static_cast<uint32_t>(payload.size()));
    CHECK(client.reply() == 0);
    CHECK(client.receive(payload.size()) == payload);
    // More than the whole arena of 8 MiB at once is refused, and nothing hangs.
    client.send(nbd::kCmdRead, 0, 7u << 20);
    CHECK(client.reply() == nbd::kErrorInvalid);
    client.send(nbd::kCmdRead, 0, 6u << 20);
    CHECK(client.reply() == 0);
    CHECK(client.receive(6u << 20).size() == 6u << 20);
  }
  CHECK(status_of_now(*engine).writes == 1);
  engine->close(false);
  engine->close(false);
  CHECK(rig.folder.get("disk", 12345, payload.size()) == payload);
  CHECK(access(rig.folder.path("socket").c_str(), F_OK) != 0);
  engine.reset();
  engine = rig.open();
  REQUIRE(engine != nullptr);
  CHECK_FALSE(rig.report.crashed);
}

TEST_CASE("the status tells in what batches requests came, and that the thread was woken") {
  Rig rig;
  auto engine = rig.open_served();
  Client client(rig.folder.path("socket"));
  const VolumeStatus before = status_of_now(*engine);
  constexpr size_t kTogether = 8;
  constexpr size_t kAlone = 3;
  client.send_together(kTogether, nbd::kCmdRead, 0, 512);
  for (size_t i = 0; i < kTogether; ++i) {
    CHECK(client.reply() == 0);
    client.receive(512);
  }
  CHECK(status_of_now(*engine).thread.request_batches == before.thread.request_batches + 1);
  for (size_t i = 0; i < kAlone; ++i) {
    client.send(nbd::kCmdRead, 0, 512);
    CHECK(client.reply() == 0);
    client.receive(512);
  }
  const VolumeStatus after = status_of_now(*engine);
  CHECK(after.thread.request_batches == before.thread.request_batches + 1 + kAlone);
  CHECK(after.reads == before.reads + kTogether + kAlone);
  CHECK(after.thread.link_sends == 0);
  CHECK(after.thread.link_receives == 0);
  // It may still be awake when a request comes, but not each time.
  const uint64_t end_us = monotonic_us() + 60'000'000;
  while (status_of_now(*engine).thread.wakeups == before.thread.wakeups) {
    REQUIRE(monotonic_us() < end_us);
  }
  engine->close(false);
}

TEST_CASE("a volume in use is locked, and the one who holds it is named") {
  Rig rig;
  auto engine = rig.open();
  REQUIRE(engine != nullptr);
  CHECK(rig.open() == nullptr);
  CHECK(rig.error.code == "BACKING_LOCKED");
  CHECK(rig.error.message.find("process " + std::to_string(getpid())) != std::string::npos);
  engine.reset();
  CHECK(rig.open() != nullptr);
}

TEST_CASE("an engine that is only destroyed leaves what a crash leaves") {
  Rig rig;
  auto engine = rig.open_served();
  Client client(rig.folder.path("socket"));
  for (int i = 0; i < 64; ++i) client.send(nbd::kCmdWrite, i * 8192, 8192, std::string(8192, 'w'));
  engine.reset();
  engine = rig.open();
  REQUIRE(engine != nullptr);
  CHECK(rig.report.crashed);
  CHECK(rig.report.crashed_primary);
}

TEST_CASE("frontends need a primary, come one at a time, and are not pulled from under a client") {
  Rig rig;
  auto engine = rig.open();
  REQUIRE(engine != nullptr);
  CHECK(rig.serve(*engine) == "NOT_PRIMARY");
  CHECK(Rig::stop(*engine, false) == "NO_FRONTEND");
  REQUIRE(Rig::promote(*engine) == 0);
  REQUIRE(rig.serve(*engine) == "");
  CHECK(rig.serve(*engine) == "FRONTEND_EXISTS");
  std::optional<Client> client(rig.folder.path("socket"));
  CHECK(Rig::stop(*engine, false) == "NBD_BUSY");
  client->send(nbd::kCmdFlush, 0, 0);
  CHECK(client->reply() == 0);
  CHECK(Rig::stop(*engine, true) == "");
  CHECK(client->receive(1).empty());
  CHECK(engine->device() == "");
  CHECK(rig.serve(*engine) == "");
  engine->close(false);
  CHECK(Rig::stop(*engine, true) == "CLOSED");
}

TEST_CASE("a socket that somebody listens on is refused, a dead one replaced") {
  Rig rig;
  Rig other;
  auto engine = rig.open();
  auto second = other.open();
  REQUIRE(Rig::promote(*engine) == 0);
  REQUIRE(Rig::promote(*second) == 0);
  REQUIRE(rig.serve(*engine) == "");
  NbdOptions options;
  options.socket_path = rig.folder.path("socket");
  const auto start = [&](auto done) { second->start_nbd(options, done); };
  CHECK(Rig::wait(start) == "NBD_ADDRESS");
  REQUIRE(link(options.socket_path.c_str(), rig.folder.path("dead").c_str()) == 0);
  engine->close(false);
  options.socket_path = rig.folder.path("dead");
  CHECK(Rig::wait(start) == "");
  second->close(false);
  options.socket_path = rig.folder.file("plain", 0);
  second = other.open();
  REQUIRE(Rig::promote(*second) == 0);
  CHECK(Rig::wait(start) == "NBD_ADDRESS");
  CHECK(access(options.socket_path.c_str(), F_OK) == 0);
}

TEST_CASE("the status of a thread that is stuck is the last one, and says of when") {
  Rig rig;
  auto engine = rig.open();
  REQUIRE(engine != nullptr);
  std::promise<void> stuck;
  std::promise<void> release;
  engine->call([&](Volume& volume) {
    volume.suspend("the test says so");
    stuck.set_value();
    release.get_future().wait();
  });
  stuck.get_future().wait();
  const uint64_t asked_us = monotonic_us();
  const VolumeStatus old = engine->status(true);
  CHECK(old.now_us < asked_us);
  CHECK(old.age_us >= asked_us - old.now_us);
  CHECK_FALSE(old.suspended);
  release.set_value();
  CHECK(status_of_now(*engine).suspended);
  engine->close(false);
}

TEST_CASE("what waits on a suspended volume fails when its frontend is stopped by force") {
  Rig rig;
  auto engine = rig.open();
  REQUIRE(Rig::promote(*engine) == 0);
  REQUIRE(rig.serve(*engine) == "");
  engine->call([](Volume& volume) { volume.suspend("the test says so"); });
  Client client(rig.folder.path("socket"));
  client.send(nbd::kCmdWrite, 0, 4096, std::string(4096, 'w'));
  client.send(nbd::kCmdFlush, 0, 0);
  while (status_of_now(*engine).requests_in_flight < 2) usleep(1000);
  CHECK(Rig::stop(*engine, true) == "");
  const VolumeStatus before = status_of_now(*engine);
  CHECK(before.requests_in_flight == 0);
  CHECK(before.suspended);
  engine->call([](Volume& volume) { volume.resume(); });
  const VolumeStatus after = status_of_now(*engine);
  CHECK(after.written_bytes == before.written_bytes);
  CHECK(after.current == before.current);
  engine->close(false);
}

TEST_CASE("a volume whose I/O is suspended can be closed, with requests waiting") {
  for (const bool abandon : {false, true}) {
    Rig rig;
    auto engine = rig.open();
    REQUIRE(engine != nullptr);
    REQUIRE(Rig::promote(*engine) == 0);
    REQUIRE(rig.serve(*engine) == "");
    engine->call([](Volume& volume) { volume.suspend("the test says so"); });
    Client client(rig.folder.path("socket"));
    client.send(nbd::kCmdWrite, 0, 4096, std::string(4096, 'w'));
    client.send(nbd::kCmdRead, 0, 4096);
    while (status_of_now(*engine).requests_in_flight < 2) usleep(1000);
    engine->close(abandon);
    CHECK(client.receive(1).empty());
  }
}

TEST_CASE("both link rings are empty after a reset, whatever was in them") {
  Rig rig;
  auto engine = rig.open();
  REQUIRE(engine != nullptr);
  const std::vector<uint8_t> bytes(1000, 7);
  CHECK(engine->feed(bytes) == bytes.size());
  engine->reset_link_bytes();
  CHECK(engine->outgoing().empty());
  // The whole ring is free again.
  const std::vector<uint8_t> full(4u << 20, 7);
  CHECK(engine->feed(full) == full.size());
  engine->close(true);
  engine->reset_link_bytes();
}

// Nothing but the end of what held them back wakes the thread: the disk's I/O is done in place, the
// next ping is due in an hour.
TEST_CASE("frames that were held back are looked at when that is over, in the same moment") {
  constexpr const char* kInMemory = "/dev/shm";
  struct statfs place;
  REQUIRE(statfs(kInMemory, &place) == 0);
  REQUIRE(place.f_type == TMPFS_MAGIC);
  constexpr uint64_t kHourUs = 3'600'000'000;
  constexpr uint32_t kIncarnation = 7;
  Rig rig(kInMemory);
  std::promise<std::string> heard;
  EngineCallbacks callbacks;
  callbacks.event = [&](const Event& event) {
    if (event.kind == EventKind::kControl) heard.set_value(event.text);
  };
  auto engine = rig.open(callbacks);
  REQUIRE(engine != nullptr);
  // Only a copy that is whole keeps its link when it is promoted.
  REQUIRE(Rig::promote(*engine) == 0);
  REQUIRE(Rig::demote(*engine) == 0);
  const int prepared = Rig::command(*engine, [](Volume& volume, Done done) {
    Limits limits;
    limits.ping_interval_us = kHourUs;
    limits.peer_timeout_us = 10 * kHourUs;
    volume.set_limits(limits);
    Uuid peer;
    for (uint8_t& byte : peer.bytes) byte = 1;
    const HandshakeState state = volume.handshake_state(peer);
    LinkParams params;
    params.serial = state.serial;
    params.peer_current = state.current;
    params.peer_id = peer;
    params.peer_name = "peer";
    params.peer_disk = DiskState::kUpToDate;
    params.incarnation = kIncarnation;
    volume.link_prepare(params, done);
  });
  REQUIRE(prepared == 0);
  const std::string said = "here";
  FrameHeader control;
  control.type = FrameType::kControl;
  const std::vector<uint8_t> payload(said.begin(), said.end());
  std::vector<uint8_t> bytes = test::frame_bytes(control, kIncarnation, payload);
  SUBCASE("by a change of the role") {
    engine->call([&](Volume& volume) {
      REQUIRE(volume.link_start());
      volume.promote(false, [](int, const std::string&) {});
      engine->feed(bytes);
    });
  }
  SUBCASE("by an ordering barrier") {
    FrameHeader header;
    header.type = FrameType::kBarrier;
    header.flags = kFrameHard;
    header.epoch = 1;
    const std::vector<uint8_t> barrier = test::frame_bytes(header, kIncarnation);
    bytes.insert(bytes.begin(), barrier.begin(), barrier.end());
    engine->call([&](Volume& volume) {
      REQUIRE(volume.link_start());
      engine->feed(bytes);
    });
  }
  std::future<std::string> text = heard.get_future();
  REQUIRE(text.wait_for(std::chrono::minutes(1)) == std::future_status::ready);
  CHECK(text.get() == said);
  engine->close(true);
}

TEST_CASE("options that cannot work are refused by name") {
  Rig rig;
  EngineOptions options;
  options.name = "volume";
  options.backing_path = rig.folder.path("disk");
  const auto code = [&](auto change) {
    EngineOptions changed = options;
    change(changed);
    CHECK(Engine::open(changed, {}, false, &rig.report, &rig.error) == nullptr);
    return rig.error.code;
  };
  CHECK(code([](EngineOptions& o) { o.arena_bytes = 4096; }) == "OPTIONS");
  CHECK(code([](EngineOptions& o) { o.send_ring_bytes = 5'000'000; }) == "OPTIONS");
  CHECK(code([](EngineOptions& o) { o.placement = Placement::kExternal; }) == "OPTIONS");
  CHECK(code([](EngineOptions& o) { o.backing_path += "x"; }) == "BACKING_OPEN");
  CHECK(code([](EngineOptions& o) { o.backing_path = "/dev/null"; }) == "BACKING_OPEN");
  CHECK(code([](EngineOptions& o) { o.placement = Placement::kStart; }) == "METADATA_BLANK");
  CHECK(code([](EngineOptions& o) {
          o.placement = Placement::kExternal;
          o.metadata_path = o.backing_path;
        }) == "OPTIONS");
}

}  // namespace
}  // namespace tidemark
