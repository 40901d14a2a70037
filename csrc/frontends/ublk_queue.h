// The one hardware queue of a ublk device, on the volume's ring: every tag's command is either in
// the kernel, waiting for a request, or its request is with the volume. All of it runs on the
// volume's thread, the only one the driver (6.12) takes commands from.
//
//   tag:  kIdle --fetch--> kFetched --result 0--> kServed --complete()--> kFetched ...
//                              \--result < 0--> kFinal       (-ENODEV: the device was stopped)
//
// One tag has one payload buffer, in one mapping for all. A request belongs to the volume until its
// complete(), whatever became of the tag meanwhile.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "core/host.h"
#include "engine/frontend.h"
#include "engine/ring.h"
#include "vendor/linux/ublk_cmd.h"

namespace tidemark {

// What a descriptor asks for; 0, or the errno that refuses it. Buffer and owner are left alone.
int ublk_decode(const ublksrv_io_desc& descriptor, uint64_t volume_bytes, Request* request);

// Where the driver maps the descriptors of a queue, and how much must be mapped.
uint64_t ublk_descriptors_offset(uint16_t queue_id, size_t page_bytes);
size_t ublk_descriptors_bytes(uint16_t depth, size_t page_bytes);

class UblkQueue {
 public:
  struct Events {
    std::function<void()> ended;                         // all tags are final
    std::function<void(const std::string&)> tag_failed;  // a tag ended otherwise than by a stop
  };

  UblkQueue(FrontendHost& host, Frontend* owner, Events events);
  // Tags that are still with the kernel: abandon() is done for them.
  ~UblkQueue();
  UblkQueue(const UblkQueue&) = delete;
  UblkQueue& operator=(const UblkQueue&) = delete;

  // Takes over the open character device; maps descriptors and payload. 0 or -errno.
  int map(int char_fd, uint16_t depth, uint32_t max_io_bytes);
  // Offers every tag to the driver.
  int fetch();
  // Gives back a served tag's request.
  void complete(Request* request);
  // For a device that is about to go: every request, also those with the volume, fails with EIO
  // from now on. The volume's answers change nothing any more.
  void give_up();

  // Tags that are not final. From any thread.
  uint32_t live() const { return live_.load(std::memory_order_acquire); }
  // Requests with the volume. From any thread.
  uint32_t out() const { return out_.load(std::memory_order_acquire); }
  // Rises with each request that is done. From any thread.
  uint64_t progress() const { return progress_.load(std::memory_order_acquire); }

  // Only when no tag is live: gives all back, but for buffers that the volume still has.
  void close();
  // Leaves the device to a successor: the character device is closed, and what the kernel may still
  // touch before the ring is gone stays mapped as nothing.
  void abandon();

 private:
  struct Tag;
  enum class TagState : uint8_t { kIdle, kFetched, kServed, kFinal };

  void command(Tag& tag, uint32_t operation);
  void completed(Tag& tag, int32_t result);
  void serve(Tag& tag);
  void commit(Tag& tag, int32_t result);
  void finish(Tag& tag);
  void leave_device();
  void keep_tags();

  FrontendHost& host_;
  Frontend* const owner_;
  Events events_;
  int fd_ = -1;
  uint16_t depth_ = 0;
  uint32_t max_io_bytes_ = 0;
  bool given_up_ = false;
  const ublksrv_io_desc* descriptors_ = nullptr;
  size_t descriptors_bytes_ = 0;
  uint8_t* payload_ = nullptr;
  size_t payload_bytes_ = 0;
  uint8_t* scratch_ = nullptr;  // one buffer more in the payload, for what is refused
  std::unique_ptr<Tag[]> tags_;
  std::atomic<uint32_t> live_ = 0;
  std::atomic<uint32_t> out_ = 0;
  std::atomic<uint64_t> progress_ = 0;
};

}  // namespace tidemark
