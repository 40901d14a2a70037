// The inside of an Engine: what its thread owns, and what other threads may touch.
//
//   engine.cc         opening and closing, the calls of other threads
//   engine_thread.cc  the thread: its loop, and the sides that the core and the frontends see
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "engine/alarm.h"
#include "engine/arena.h"
#include "engine/byte_ring.h"
#include "engine/disk.h"
#include "engine/engine.h"
#include "engine/frontend.h"
#include "engine/link_socket.h"
#include "engine/mailbox.h"
#include "engine/ring.h"

namespace tidemark {

class Engine::Impl {
 public:
  Impl(EngineOptions options, EngineCallbacks callbacks);
  ~Impl();

  bool open(bool suspended, AttachReport* report, EngineError* error);
  void close(bool abandon);

  using Starter = std::function<void(FrontendDone)>;
  void post_start(const char* kind, bool needs_primary, Starter starter, FrontendDone done);
  void stop_frontend(bool force, FrontendDone done);
  void reset_link_bytes();
  int take_socket(int fd, SocketEnded ended);
  void drop_socket();
  void heard(size_t bytes);
  VolumeStatus status(bool fresh);

  // What the core sees.
  class CoreHost final : public Host {
   public:
    explicit CoreHost(Impl& impl) : impl_(impl) {}
    void submit(Io* io) override;
    void complete(Request* request) override;
    uint8_t* buffer_get(size_t bytes) override;
    void buffer_put(uint8_t* buffer, size_t bytes) override;
    uint64_t random_u64() override;
    void event(Event event) override;
    size_t send_space() override;
    uint8_t* send_reserve(size_t bytes) override;
    void send_commit(size_t bytes) override;

   private:
    Impl& impl_;
    std::vector<uint64_t> random_;
  };

  // What the frontends see.
  class FrontendSide final : public FrontendHost {
   public:
    explicit FrontendSide(Impl& impl) : impl_(impl) {}
    Ring& ring() override;
    void submit(Request* request) override;
    uint8_t* buffer_get(size_t bytes) override;
    void buffer_put(uint8_t* buffer, size_t bytes) override;
    size_t buffer_bytes_max() const override;
    void post(std::function<void()> task) override;
    uint64_t volume_bytes() const override;
    uint32_t block_bytes() const override;
    bool can_discard() const override;
    bool fast_zeroes() const override;
    uint64_t now_us() const override;
    void frontend_failed(const std::string& why) override;

   private:
    Impl& impl_;
  };

  const EngineOptions options_;
  const EngineCallbacks callbacks_;
  FrontendSide frontend_side_{*this};

  // --- shared with other threads ---
  Mailbox mailbox_;
  const std::shared_ptr<ByteRing> send_ = std::make_shared<ByteRing>();  // views outlive the engine
  ByteRing receive_;
  mutable std::mutex status_mutex_;
  std::condition_variable status_ready_;
  VolumeStatus status_;
  std::string device_;
  std::atomic<bool> status_wanted_{false};
  std::atomic<size_t> unheard_{0};        // bytes of events (event_bytes())
  std::atomic<bool> waits_heard_{false};  // the link's input waits until some of them were heard

 private:
  friend class Engine;

  // --- the thread ---
  void thread_main(bool suspended);
  int prepare(bool suspended);
  void loop();
  void turn();
  bool pass_on();
  bool run_tasks();
  bool link_input();
  void publish_status();
  void release_frontends();
  void set_device(const std::string& device);
  // Ends the loop: when the frontend and the volume have stopped, or at once.
  void begin_close(bool abandon);
  void stop_volume();
  void finish(bool abandon);
  void drain();
  void report_failure(const std::string& what);

  CoreHost core_host_{*this};
  std::unique_ptr<Backing> backing_;
  std::unique_ptr<Backing> metadata_;  // null: on the backing
  std::unique_ptr<Attachment> attachment_;
  Superblock superblock_;
  uint64_t metadata_bytes_ = 0;
  uint64_t volume_bytes_ = 0;
  bool can_discard_ = false;
  bool fast_zeroes_ = false;

  // Owned by the thread, in the order in which they may use each other.
  Ring ring_;
  Alarm alarm_{ring_};
  Arena arena_;
  std::unique_ptr<Disk> disk_;
  std::unique_ptr<Volume> volume_;
  std::unique_ptr<Frontend> frontend_;
  std::vector<std::unique_ptr<Frontend>> retired_;  // stopped, with requests still out
  uint64_t requests_out_ = 0;
  std::unique_ptr<LinkSocket> socket_;  // of the link; null: its bytes go through feed()
  size_t link_left_ = 0;        // bytes of the receive ring that the volume did not take yet
  bool link_unheard_ = false;   // they wait for JavaScript, which wakes this thread
  bool starting_ = false;       // a frontend is on its way up
  bool stopping_ = false;       // or down
  bool submitted_ = false;      // a request came in since the last poll
  bool took_requests_ = false;  // in this turn
  ThreadStatus counts_;         // but for what the kernel counts
  bool again_ = true;           // there is more to do: do not sleep
  bool closing_ = false;
  bool abandoned_ = false;
  bool ended_ = false;

  std::thread thread_;
  std::mutex life_mutex_;
  std::condition_variable life_changed_;
  bool prepared_ = false;
  int prepare_error_ = 0;
  std::string prepare_call_;
  bool thread_ended_ = false;
  bool joined_ = false;
};

}  // namespace tidemark
