// A volume in memory behind the real ublk frontend, for the test machine: what the frontend does
// with the driver, without the engine. Driven by arguments and signals, answers in lines on
// standard output.
//
//   tidemark-ublk-memory memory=FILE bytes=N [id=N] [depth=N] [io=BYTES] [block=512|4096]
//   [discard=0]
//                        [recover=1] [tag=N] [delay_us=N] [bad=OFFSET] [fail=STEP] [die=STEP]
//   tidemark-ublk-memory remove id=N      stop and delete a device, as another server's tool would
//   tidemark-ublk-memory features
//
//   FILE      holds the volume's content; in /dev/shm it outlives the process
//   delay_us  every request takes this long
//   hold      requests are held from the start
//   bad       reads and writes of this byte fail with EIO
//   fail      the named step of start or stop fails (ENOMEDIUM); die: the process kills itself
//   there
//
//   SIGTERM   stop          -> "stopped", exit 0, or "stop-failed CODE message"
//   SIGUSR1   forced stop
//   SIGUSR2   -> "served reads=N writes=N flushes=N discards=N zeroes=N fua=N"
//   SIGHUP    hold all requests from now on -> "holding"; what is held is answered once the device
//   is stopped SIGINT    end the volume's thread without a stop, and take the device over with a
//   new one
#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "frontends/features.h"
#include "frontends/ublk.h"

namespace tidemark {
namespace {

using Arguments = std::map<std::string, std::string>;

uint64_t number(const Arguments& arguments, const std::string& name, uint64_t otherwise) {
  const auto found = arguments.find(name);
  return found == arguments.end() ? otherwise : std::strtoull(found->second.c_str(), nullptr, 0);
}

void say(const std::string& line) {
  std::puts(line.c_str());
  std::fflush(stdout);
}

std::string text_of(const EngineError& error) { return error.code + " " + error.message; }

// The content; shared by the volumes that follow each other.
struct Memory {
  uint8_t* bytes = nullptr;
  uint64_t size = 0;

  Memory(const std::string& path, uint64_t wanted) : size(wanted) {
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    void* address = MAP_FAILED;
    if (fd >= 0 && ftruncate(fd, static_cast<off_t>(size)) == 0) {
      address = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    if (address == MAP_FAILED) {
      std::perror(path.c_str());
      std::exit(2);
    }
    close(fd);
    bytes = static_cast<uint8_t*>(address);
  }
};

struct Counts {
  uint64_t by_op[5] = {};
  uint64_t fua = 0;
};

class MemoryVolume final : public FrontendHost {
 public:
  MemoryVolume(const Memory& memory, const Arguments& arguments)
      : memory_(memory),
        block_bytes_(static_cast<uint32_t>(number(arguments, "block", 512))),
        discard_(number(arguments, "discard", 1) != 0),
        delay_us_(number(arguments, "delay_us", 0)),
        bad_(number(arguments, "bad", UINT64_MAX)),
        wake_fd_(eventfd(0, EFD_CLOEXEC)),
        hold_(number(arguments, "hold", 0) != 0) {}

  ~MemoryVolume() override { close(wake_fd_); }

  // Serves until quit(); on the thread that is the volume's.
  void serve() {
    const int error = ring_.open({});
    if (error != 0) {
      say(std::string("start-failed RING ") + std::strerror(-error));
      std::exit(1);
    }
    wake_.done = [](Completion* self, int32_t, uint32_t) {
      static_cast<Wake*>(self)->volume->await_wake();
    };
    wake_.volume = this;
    await_wake();
    while (!quit_) {
      ring_.turn(timeout_us());
      run_tasks();
      finish_due();
      if (frontend) frontend->turn_end();
    }
    frontend.reset();
  }

  // When the volume's thread has ended, and not before: a request that the driver hands to a thread
  // whose ring is already closed is lost on Linux 6.12, and the device never gets quiesced.
  void end() { ring_.close(); }

  void quit() { quit_ = true; }
  void hold(bool on) { hold_ = on; }

  std::unique_ptr<UblkFrontend> frontend;
  Counts counts;

  Ring& ring() override { return ring_; }
  void submit(Request* request) override {
    ++counts.by_op[static_cast<int>(request->op)];
    if ((request->flags & kRequestFua) != 0) ++counts.fua;
    waiting_.push_back({now_us() + delay_us_, request});
  }
  uint8_t* buffer_get(size_t) override { return nullptr; }
  void buffer_put(uint8_t*, size_t) override {}
  void post(std::function<void()> task) override {
    {
      const std::lock_guard lock(mutex_);
      tasks_.push_back(std::move(task));
    }
    const uint64_t one = 1;
    static_cast<void>(!write(wake_fd_, &one, sizeof one));
  }
  uint64_t volume_bytes() const override { return memory_.size; }
  uint32_t block_bytes() const override { return block_bytes_; }
  bool can_discard() const override { return discard_; }
  bool fast_zeroes() const override { return discard_; }
  uint64_t now_us() const override {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return static_cast<uint64_t>(
        std::chrono::duration_cast<std::chrono::microseconds>(now).count());
  }
  void frontend_failed(const std::string& why) override { say("frontend-failed " + why); }

 private:
  struct Wake : Completion {
    MemoryVolume* volume = nullptr;
  };
  struct Waiting {
    uint64_t due_us;
    Request* request;
  };

  void await_wake() {
    io_uring_sqe* sqe = ring_.sqe(&wake_);
    sqe->opcode = IORING_OP_READ;
    sqe->fd = wake_fd_;
    sqe->addr = reinterpret_cast<uint64_t>(&wake_value_);
    sqe->len = sizeof wake_value_;
  }

  uint64_t timeout_us() const {
    if (waiting_.empty() || hold_) return UINT64_MAX;
    const uint64_t now = now_us();
    return waiting_.front().due_us > now ? waiting_.front().due_us - now : 0;
  }

  void run_tasks() {
    std::deque<std::function<void()>> tasks;
    {
      const std::lock_guard lock(mutex_);
      tasks.swap(tasks_);
    }
    for (auto& task : tasks) task();
  }

  void finish_due() {
    const uint64_t now = now_us();
    while (!hold_ && !waiting_.empty() && waiting_.front().due_us <= now) {
      Request* request = waiting_.front().request;
      waiting_.pop_front();
      request->result = execute(*request);
      static_cast<UblkFrontend*>(request->owner)->complete(request);
    }
  }

  int32_t execute(const Request& request) {
    if (request.offset > memory_.size || request.length > memory_.size - request.offset) {
      return -EIO;
    }
    uint8_t* const place = memory_.bytes + request.offset;
    const bool transfers = request.op == Op::kRead || request.op == Op::kWrite;
    if (transfers && bad_ >= request.offset && bad_ < request.offset + request.length) return -EIO;
    switch (request.op) {
      case Op::kRead:
        std::memcpy(request.buffer, place, request.length);
        break;
      case Op::kWrite:
        std::memcpy(place, request.buffer, request.length);
        break;
      case Op::kDiscard:
      case Op::kWriteZeroes:
        std::memset(place, 0, request.length);
        break;
      case Op::kFlush:
        break;
    }
    return 0;
  }

  const Memory& memory_;
  const uint32_t block_bytes_;
  const bool discard_;
  const uint64_t delay_us_;
  const uint64_t bad_;
  Ring ring_;
  Wake wake_;
  const int wake_fd_;
  uint64_t wake_value_ = 0;
  bool quit_ = false;
  bool hold_;
  std::mutex mutex_;
  std::deque<std::function<void()>> tasks_;
  std::deque<Waiting> waiting_;
};

UblkHooks hooks_of(const Arguments& arguments) {
  const auto fail = arguments.find("fail");
  const auto die = arguments.find("die");
  const std::string failing = fail == arguments.end() ? "" : fail->second;
  const std::string dying = die == arguments.end() ? "" : die->second;
  return {[failing, dying](const char* step) {
    if (step == dying) {
      say("dies at " + dying);
      raise(SIGKILL);
    }
    return step == failing ? ENOMEDIUM : 0;
  }};
}

// One volume and its thread.
class Run {
 public:
  Run(const Memory& memory, const Arguments& arguments, const UblkOptions& options)
      : volume_(memory, arguments) {
    volume_.post([this, options, hooks = hooks_of(arguments)] {
      UblkFrontend::start(
          volume_, options,
          [this](std::unique_ptr<UblkFrontend> frontend, const EngineError* error) {
            if (error != nullptr) {
              say("start-failed " + text_of(*error));
              answer_held(1);
              return;
            }
            device_id_ = static_cast<int>(frontend->device_id());
            volume_.frontend = std::move(frontend);
            say("started " + volume_.frontend->device());
          },
          hooks);
    });
    thread_ = std::thread([this] { volume_.serve(); });
  }

  void stop(bool force) {
    volume_.post([this, force] {
      if (!volume_.frontend) return;
      volume_.frontend->stop(force, [this](const EngineError* error) {
        if (error != nullptr) {
          say("stop-failed " + text_of(*error));
          return;
        }
        say("stopped");
        answer_held(0);
      });
    });
  }

  void count() {
    volume_.post([this] {
      const Counts& counts = volume_.counts;
      const auto of = [&](Op op) { return std::to_string(counts.by_op[static_cast<int>(op)]); };
      say("served reads=" + of(Op::kRead) + " writes=" + of(Op::kWrite) +
          " flushes=" + of(Op::kFlush) + " discards=" + of(Op::kDiscard) +
          " zeroes=" + of(Op::kWriteZeroes) + " fua=" + std::to_string(counts.fua) +
          (volume_.frontend && volume_.frontend->in_use() ? " in-use" : ""));
    });
  }

  void hold() {
    volume_.post([this] {
      volume_.hold(true);
      say("holding");
    });
  }

  // Ends the thread and leaves the device; its id.
  int leave() {
    volume_.post([this] { volume_.quit(); });
    thread_.join();
    volume_.end();
    return device_id_;
  }

 private:
  // The volume answers late what it still has; a frontend that owns it must bear that.
  void answer_held(int status) {
    volume_.hold(false);
    volume_.post([this, status] {
      volume_.post([this, status] {
        volume_.frontend.reset();
        std::_Exit(status);
      });
    });
  }

  MemoryVolume volume_;
  int device_id_ = -1;
  std::thread thread_;
};

int serve(const Arguments& arguments) {
  const Memory memory(arguments.at("memory"), number(arguments, "bytes", 64u << 20));
  UblkOptions options;
  options.device_id = static_cast<int>(number(arguments, "id", UINT64_MAX));
  options.queue_depth = static_cast<uint16_t>(number(arguments, "depth", 128));
  options.max_io_bytes = static_cast<uint32_t>(number(arguments, "io", 512u << 10));
  options.recover = number(arguments, "recover", 0) != 0;
  options.volume_tag = static_cast<uint32_t>(number(arguments, "tag", 0));
  auto run = std::make_unique<Run>(memory, arguments, options);
  for (;;) {
    sigset_t signals;
    pthread_sigmask(SIG_SETMASK, nullptr, &signals);
    int signal = 0;
    if (sigwait(&signals, &signal) != 0) return 2;
    switch (signal) {
      case SIGTERM:
        run->stop(false);
        break;
      case SIGUSR1:
        run->stop(true);
        break;
      case SIGUSR2:
        run->count();
        break;
      case SIGHUP:
        run->hold();
        break;
      default: {
        UblkOptions again = options;
        again.device_id = run->leave();
        again.recover = true;
        say("left " + std::to_string(again.device_id));
        run = std::make_unique<Run>(memory, arguments, again);
      }
    }
  }
}

int remove(const Arguments& arguments) {
  const auto id = static_cast<uint32_t>(number(arguments, "id", 0));
  UblkControl control;
  const char* failed_call = "";
  const auto deadline = UblkClock::now() + std::chrono::seconds(30);
  int error = control.open(&failed_call);
  if (error == 0) error = control.stop(id, deadline);
  // The server still holds the device: not waited for.
  if (error == 0) error = control.remove(id, false, deadline);
  if (error != 0) say(std::string("remove-failed ") + std::strerror(-error));
  return error == 0 ? 0 : 1;
}

}  // namespace
}  // namespace tidemark

int main(int count, char** words) {
  // Blocked here and so in every thread; taken by sigwait().
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGUSR1, SIGUSR2, SIGHUP, SIGINT}) sigaddset(&signals, signal);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  tidemark::Arguments arguments;
  for (const std::string_view word : std::vector<std::string_view>(words + 1, words + count)) {
    const size_t equals = word.find('=');
    arguments[std::string(word.substr(0, equals))] =
        equals == std::string_view::npos ? "" : std::string(word.substr(equals + 1));
  }
  if (arguments.contains("features")) {
    tidemark::say(tidemark::features_json());
    return 0;
  }
  if (arguments.contains("remove")) return tidemark::remove(arguments);
  if (!arguments.contains("memory")) {
    std::fputs("tidemark-ublk-memory: memory=FILE is needed; see the head of its source\n", stderr);
    return 2;
  }
  return tidemark::serve(arguments);
}
