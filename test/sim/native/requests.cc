#include "requests.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "page.h"
#include "stamp.h"

namespace tidemark::sim {
namespace {

// A completed request's memory is kept for so many others, so that a second completion, or a write
// into it, is known for what it is.
constexpr size_t kQuarantine = 256;
constexpr uint64_t kSpoiltOffset = 0xdbdbdbdbdbdbdbdbu;

const char* op_text(Op op) {
  switch (op) {
    case Op::kRead:
      return "read";
    case Op::kWrite:
      return "write";
    case Op::kFlush:
      return "flush";
    case Op::kDiscard:
      return "discard";
    case Op::kWriteZeroes:
      return "write-zeroes";
  }
  return "?";
}

void spoil(Request& request) {
  request = {};
  request.offset = kSpoiltOffset;
  request.result = INT32_MAX;
}

bool spoilt(const Request& request) {
  return request.offset == kSpoiltOffset && request.result == INT32_MAX &&
         request.core_state == nullptr && request.length == 0 && request.buffer == nullptr;
}

std::string name(const char* what, uint64_t id, const Ask& ask) {
  return std::string(what) + " " + std::to_string(id) + " (" + op_text(ask.op) + " " +
         std::to_string(ask.offset) + "+" + std::to_string(ask.length) + ")";
}

}  // namespace

Request* Requests::make(const Ask& ask, uint64_t id) {
  std::unique_ptr<Entry> entry;
  if (idle_.size() > kQuarantine) {
    entry = std::move(idle_.front());
    idle_.pop_front();
  } else {
    entry = std::make_unique<Entry>();
  }
  entry->ask = ask;
  entry->id = id;
  entry->out = true;
  entry->buffer_bytes = ask.op == Op::kRead || ask.op == Op::kWrite ? ask.length : 0;
  Request& request = entry->request;
  request = {};
  request.op = ask.op;
  request.flags =
      static_cast<uint8_t>((ask.fua ? kRequestFua : 0) | (ask.no_unmap ? kRequestNoUnmap : 0));
  request.offset = ask.offset;
  request.length = ask.length;
  if (entry->buffer_bytes != 0) request.buffer = buffers_.get(entry->buffer_bytes);
  if (ask.op == Op::kWrite) {
    for (uint64_t at = 0; at < ask.length; at += kSectorBytes)
      fill_sector(request.buffer + at, (ask.offset + at) / kSectorBytes, ask.stamp);
    entry->fingerprint = fingerprint(request.buffer, ask.length);
  }
  Request* out = &request;
  out_.emplace(id, entry.get());
  all_.push_back(std::move(entry));
  return out;
}

std::string Requests::judge(Entry& entry) {
  const Request& request = entry.request;
  const Ask& ask = entry.ask;
  if (request.result > 0)
    return name("request", entry.id, ask) + " ends with result " + std::to_string(request.result);
  if (request.core_state != nullptr)
    return name("request", entry.id, ask) + " ends while the core still keeps its state in it";
  if (request.offset != ask.offset || request.length != ask.length || request.op != ask.op)
    return name("request", entry.id, ask) + " was changed";
  if (ask.op == Op::kWrite && fingerprint(request.buffer, ask.length) != entry.fingerprint)
    return name("request", entry.id, ask) + ": the application's buffer was written to";
  return {};
}

std::string Requests::complete(Request* request, uint32_t link_slot) {
  const auto same = [&](const std::unique_ptr<Entry>& entry) { return &entry->request == request; };
  const auto found = std::find_if(all_.begin(), all_.end(), same);
  if (found == all_.end()) {
    const auto before = std::find_if(idle_.begin(), idle_.end(), same);
    if (before == idle_.end()) return "a request was completed that was never submitted";
    return name("request", (*before)->id, (*before)->ask) + " was completed twice";
  }
  Entry& entry = **found;
  std::string wrong = judge(entry);
  Answered answer;
  answer.id = entry.id;
  answer.result = request->result;
  answer.link_slot = link_slot;
  answer.read = entry.ask.op == Op::kRead && request->result == 0;
  if (answer.read) {
    answer.stamps.reserve(entry.ask.length / kSectorBytes);
    for (uint64_t at = 0; at < entry.ask.length; at += kSectorBytes) {
      answer.stamps.push_back(
          read_sector(request->buffer + at, (entry.ask.offset + at) / kSectorBytes));
    }
  }
  answered_.push_back(std::move(answer));
  if (entry.buffer_bytes != 0 && wrong.empty())
    wrong = buffers_.put(request->buffer, entry.buffer_bytes);
  spoil(*request);
  entry.out = false;
  out_.erase(entry.id);
  idle_.push_back(std::move(*found));
  *found = std::move(all_.back());
  all_.pop_back();
  return wrong;
}

std::string Requests::check_completed() {
  if (idle_.empty()) return {};
  next_checked_ = (next_checked_ + 1) % idle_.size();
  const Entry& entry = *idle_[next_checked_];
  if (spoilt(entry.request)) return {};
  return name("request", entry.id, entry.ask) + " was used after its completion";
}

std::vector<Ask> Requests::unfinished() const {
  std::vector<Ask> asks;
  for (const auto& [id, entry] : out_) asks.push_back(entry->ask);
  return asks;
}

}  // namespace tidemark::sim
