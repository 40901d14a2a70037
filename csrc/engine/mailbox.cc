#include "engine/mailbox.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace tidemark {

Mailbox::~Mailbox() {
  if (fd_ >= 0) ::close(fd_);
}

int Mailbox::open() {
  fd_ = eventfd(0, EFD_CLOEXEC);
  return fd_ < 0 ? -errno : 0;
}

bool Mailbox::post(std::function<void()> task) {
  {
    std::lock_guard lock(mutex_);
    if (closed_) return false;
    tasks_.push_back(std::move(task));
  }
  ring();
  return true;
}

void Mailbox::ring() {
  rung_.store(true);
  if (sleeping_.load() && sleeping_.exchange(false)) {
    const uint64_t one = 1;
    // Fails only when the counter is full, and then the owner is being woken already.
    [[maybe_unused]] const ssize_t put = write(fd_, &one, sizeof one);
  }
}

void Mailbox::listen(Ring& ring) {
  ring_ = &ring;
  listening_ = true;
  read_.mailbox = this;
  read_.done = [](Completion* self, int32_t, uint32_t) {
    Mailbox* mailbox = static_cast<Read*>(self)->mailbox;
    mailbox->reading_ = false;
    if (mailbox->listening_) mailbox->rearm();
  };
  rearm();
}

void Mailbox::rearm() {
  reading_ = true;
  io_uring_sqe* sqe = ring_->sqe(&read_);
  sqe->opcode = IORING_OP_READ;
  sqe->fd = fd_;
  sqe->addr = reinterpret_cast<uint64_t>(&count_);
  sqe->len = sizeof count_;
}

bool Mailbox::sleep() {
  sleeping_.store(true);
  return !rung_.load();
}

void Mailbox::awake() {
  sleeping_.store(false);
  rung_.store(false);
}

std::vector<std::function<void()>> Mailbox::take() {
  std::lock_guard lock(mutex_);
  return std::exchange(tasks_, {});
}

void Mailbox::unlisten() {
  listening_ = false;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t put = write(fd_, &one, sizeof one);
}

std::vector<std::function<void()>> Mailbox::close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
  return std::exchange(tasks_, {});
}

}  // namespace tidemark
