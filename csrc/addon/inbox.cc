#include "addon/inbox.h"

#include <utility>

namespace tidemark::addon {

void Inbox::open(Wake wake) {
  const std::lock_guard lock(mutex_);
  wake_ = std::move(wake);
}

void Inbox::wake_locked() {
  if (waking_) return;
  // Under the lock: shut() cannot return, nor its caller release what wake_ calls, meanwhile.
  waking_ = wake_();
}

void Inbox::post_locked(Letter letter) {
  if (wake_ == nullptr) return;
  letters_.push_back(std::move(letter));
  wake_locked();
}

void Inbox::post(Answer answer) {
  const std::lock_guard lock(mutex_);
  post_locked({std::move(answer), {}});
}

void Inbox::post(Event event) {
  const std::lock_guard lock(mutex_);
  post_locked({std::nullopt, std::move(event)});
}

void Inbox::post_outgoing() {
  const std::lock_guard lock(mutex_);
  if (wake_ == nullptr) return;
  outgoing_ = true;
  wake_locked();
}

void Inbox::post_room() {
  const std::lock_guard lock(mutex_);
  if (wake_ == nullptr) return;
  room_ = true;
  wake_locked();
}

Delivery Inbox::take_locked() {
  Delivery delivery;
  while (!letters_.empty()) {
    Letter& letter = letters_.front();
    if (letter.answer.has_value()) {
      if (!delivery.events.empty()) break;
      delivery.answers.push_back(std::move(*letter.answer));
    } else {
      if (!delivery.answers.empty()) break;
      delivery.events.push_back(std::move(letter.event));
    }
    letters_.pop_front();
  }
  delivery.outgoing = std::exchange(outgoing_, false);
  delivery.room = std::exchange(room_, false);
  return delivery;
}

Delivery Inbox::take() {
  const std::lock_guard lock(mutex_);
  Delivery delivery = take_locked();
  waking_ = false;
  if (!letters_.empty() && wake_ != nullptr) wake_locked();
  return delivery;
}

std::vector<Delivery> Inbox::shut() {
  const std::lock_guard lock(mutex_);
  wake_ = nullptr;
  std::vector<Delivery> rest;
  while (!letters_.empty()) rest.push_back(take_locked());
  return rest;
}

}  // namespace tidemark::addon
