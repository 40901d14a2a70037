#include "frontends/nbd_negotiation.h"

#include <algorithm>

#include "frontends/nbd_protocol.h"

namespace tidemark {
namespace {

// A name of the longest kind and more information requests than there are kinds.
constexpr uint32_t kOptionBytesMax = 2 * nbd::kNameMax;
// Longer data is not even skipped: no client has a reason to send it.
constexpr uint32_t kOptionSkipMax = 1u << 20;
constexpr size_t kOptionHeaderBytes = 16;
constexpr size_t kZeroPadding = 124;

std::string text(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

NbdNegotiation::NbdNegotiation(const NbdExport& served) : export_(served) {
  nbd::append(&output_, nbd::kInitMagic);
  nbd::append(&output_, nbd::kOptionMagic);
  nbd::append(&output_, static_cast<uint16_t>(nbd::kFixedNewstyle | nbd::kNoZeroes));
}

void NbdNegotiation::end(const std::string& why) {
  state_ = State::kEnd;
  failure_ = why;
}

size_t NbdNegotiation::feed(std::span<const uint8_t> bytes) {
  size_t used = 0;
  while (state_ != State::kTransmission && state_ != State::kEnd && !full()) {
    const State before = state_;
    const size_t step_used = step(bytes.subspan(used));
    used += step_used;
    if (step_used == 0 && state_ == before) break;
  }
  return used;
}

size_t NbdNegotiation::step(std::span<const uint8_t> bytes) {
  switch (state_) {
    case State::kClientFlags: {
      if (bytes.size() < 4) return 0;
      const auto flags = nbd::load<uint32_t>(bytes.data());
      fixed_ = (flags & nbd::kFixedNewstyle) != 0;
      zeroes_ = (flags & nbd::kNoZeroes) == 0;
      state_ = State::kOption;
      if ((flags & ~uint32_t{nbd::kFixedNewstyle | nbd::kNoZeroes}) != 0) {
        end("the client sent unknown handshake flags");
      }
      return 4;
    }
    case State::kOption: {
      if (bytes.size() < kOptionHeaderBytes) return 0;
      option_ = nbd::load<uint32_t>(bytes.data() + 8);
      length_ = nbd::load<uint32_t>(bytes.data() + 12);
      if (nbd::load<uint64_t>(bytes.data()) != nbd::kOptionMagic) {
        end("the client sent an option without its magic");
      } else if (!fixed_ && option_ != nbd::kOptExportName) {
        // Without "fixed" the client could not understand any answer but the export.
        end("a client that is not fixed newstyle sent an option other than EXPORT_NAME");
      } else if (length_ <= kOptionBytesMax) {
        state_ = State::kOptionData;
      } else if (length_ <= kOptionSkipMax && option_ != nbd::kOptExportName) {
        state_ = State::kSkip;
      } else {
        end("the client sent an option of " + std::to_string(length_) + " bytes");
      }
      return kOptionHeaderBytes;
    }
    case State::kOptionData:
      if (bytes.size() < length_) return 0;
      state_ = State::kOption;
      option(bytes.first(length_));
      return length_;
    case State::kSkip: {
      const size_t skipped = std::min<size_t>(bytes.size(), length_);
      length_ -= static_cast<uint32_t>(skipped);
      if (length_ == 0) {
        state_ = State::kOption;
        reply(nbd::kRepErrTooBig);
      }
      return skipped;
    }
    case State::kTransmission:
    case State::kEnd:
      break;
  }
  return 0;
}

void NbdNegotiation::reply(uint32_t type, const std::string& data) {
  nbd::append(&output_, nbd::kOptionReplyMagic);
  nbd::append(&output_, option_);
  nbd::append(&output_, type);
  nbd::append(&output_, static_cast<uint32_t>(data.size()));
  output_ += data;
}

void NbdNegotiation::option(std::span<const uint8_t> data) {
  switch (option_) {
    case nbd::kOptExportName:
      return export_name(data);
    case nbd::kOptAbort:
      reply(nbd::kRepAck);
      return end("");
    case nbd::kOptList:
      return list(data);
    case nbd::kOptInfo:
    case nbd::kOptGo:
      return info_or_go(data);
    case nbd::kOptStartTls:
      return reply(nbd::kRepErrPolicy, "this server listens on this machine only, without TLS");
    default:
      return reply(nbd::kRepErrUnsupported);
  }
}

void NbdNegotiation::export_name(std::span<const uint8_t> data) {
  // This option has no error reply: closing is the answer.
  if (!serves(text(data))) return end("the client asked for an export that is not here");
  nbd::append(&output_, export_.bytes);
  nbd::append(&output_, export_.flags);
  if (zeroes_) output_.append(kZeroPadding, '\0');
  state_ = State::kTransmission;
}

void NbdNegotiation::list(std::span<const uint8_t> data) {
  if (!data.empty()) return reply(nbd::kRepErrInvalid, "LIST has no data");
  std::string entry;
  nbd::append(&entry, static_cast<uint32_t>(export_.name.size()));
  reply(nbd::kRepServer, entry + export_.name);
  reply(nbd::kRepAck);
}

void NbdNegotiation::info_or_go(std::span<const uint8_t> data) {
  const char* const malformed = "lengths that do not add up";
  if (data.size() < 6) return reply(nbd::kRepErrInvalid, malformed);
  const auto name_bytes = nbd::load<uint32_t>(data.data());
  if (name_bytes > data.size() - 6) return reply(nbd::kRepErrInvalid, malformed);
  if (name_bytes > nbd::kNameMax) return reply(nbd::kRepErrTooBig);
  const std::string name = text(data.subspan(4, name_bytes));
  const auto count = nbd::load<uint16_t>(data.data() + 4 + name_bytes);
  const std::span<const uint8_t> wanted = data.subspan(6 + name_bytes);
  if (wanted.size() != size_t{count} * 2) return reply(nbd::kRepErrInvalid, malformed);
  if (!serves(name)) return reply(nbd::kRepErrUnknown, "no such export");

  std::string info;
  nbd::append(&info, nbd::kInfoExport);
  nbd::append(&info, export_.bytes);
  nbd::append(&info, export_.flags);
  reply(nbd::kRepInfo, info);

  info.clear();
  nbd::append(&info, nbd::kInfoBlockSize);
  nbd::append(&info, export_.block_min);
  nbd::append(&info, export_.block_preferred);
  nbd::append(&info, export_.block_max);
  reply(nbd::kRepInfo, info);

  for (size_t i = 0; i < wanted.size(); i += 2) {
    if (nbd::load<uint16_t>(wanted.data() + i) != nbd::kInfoName) continue;
    info.clear();
    nbd::append(&info, nbd::kInfoName);
    reply(nbd::kRepInfo, info + export_.name);
    break;
  }
  reply(nbd::kRepAck);
  if (option_ == nbd::kOptGo) state_ = State::kTransmission;
}

}  // namespace tidemark
