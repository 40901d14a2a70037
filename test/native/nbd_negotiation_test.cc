#include "frontends/nbd_negotiation.h"

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

#include "frontends/nbd_protocol.h"

namespace tidemark {
namespace {

using State = NbdNegotiation::State;

const NbdExport kExport{"volume", 1u << 30, nbd::kHasFlags | nbd::kSendFlush, 1, 4096, 32u << 20};

std::string client_flags(uint32_t flags = nbd::kFixedNewstyle | nbd::kNoZeroes) {
  std::string out;
  nbd::append(&out, flags);
  return out;
}

std::string option(uint32_t number, const std::string& data = "") {
  std::string out;
  nbd::append(&out, nbd::kOptionMagic);
  nbd::append(&out, number);
  nbd::append(&out, static_cast<uint32_t>(data.size()));
  return out + data;
}

std::string wanted(const std::string& name, const std::vector<uint16_t>& infos = {}) {
  std::string out;
  nbd::append(&out, static_cast<uint32_t>(name.size()));
  out += name;
  nbd::append(&out, static_cast<uint16_t>(infos.size()));
  for (const uint16_t info : infos) nbd::append(&out, info);
  return out;
}

// A server whose greeting was read already.
struct Server {
  Server() {
    CHECK(negotiation.output().size() == 18);
    negotiation.output().clear();
  }
  // Returns what was left over.
  size_t say(const std::string& bytes) {
    const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
    return bytes.size() - negotiation.feed({data, bytes.size()});
  }
  // Types of the option replies so far, which must be well formed.
  std::vector<uint32_t> replies() {
    std::vector<uint32_t> types;
    const std::string out = std::exchange(negotiation.output(), "");
    for (size_t at = 0; at < out.size();) {
      REQUIRE(out.size() - at >= 20);
      const auto* bytes = reinterpret_cast<const uint8_t*>(out.data()) + at;
      CHECK(nbd::load<uint64_t>(bytes) == nbd::kOptionReplyMagic);
      types.push_back(nbd::load<uint32_t>(bytes + 12));
      at += 20 + nbd::load<uint32_t>(bytes + 16);
      REQUIRE(at <= out.size());
    }
    return types;
  }
  NbdNegotiation negotiation{kExport};
};

TEST_CASE("the greeting offers fixed newstyle without zeroes") {
  NbdNegotiation negotiation(kExport);
  CHECK(negotiation.output() == std::string("NBDMAGICIHAVEOPT\0\3", 18));
}

TEST_CASE("GO describes the export and ends the negotiation before the first request") {
  Server server;
  const std::string request = "request";
  CHECK(server.say(client_flags() + option(nbd::kOptGo, wanted("volume")) + request) ==
        request.size());
  CHECK(server.negotiation.state() == State::kTransmission);
  CHECK(server.replies() == std::vector<uint32_t>{nbd::kRepInfo, nbd::kRepInfo, nbd::kRepAck});
}

TEST_CASE("bytes may come one by one") {
  Server server;
  std::string pending;
  for (const char byte : client_flags() + option(nbd::kOptGo, wanted("", {nbd::kInfoName}))) {
    pending += byte;
    pending = pending.substr(pending.size() - server.say(pending));
  }
  CHECK(pending.empty());
  CHECK(server.negotiation.state() == State::kTransmission);
  CHECK(server.replies().size() == 4);
}

TEST_CASE("INFO answers the same and goes on negotiating") {
  Server server;
  server.say(client_flags() + option(nbd::kOptInfo, wanted("volume")));
  CHECK(server.replies().back() == nbd::kRepAck);
  CHECK(server.negotiation.state() == State::kOption);
}

TEST_CASE("what cannot be served is refused by its own error and the negotiation goes on") {
  struct Row {
    std::string option;
    uint32_t reply;
  };
  const Row rows[] = {
      {option(nbd::kOptGo, wanted("other")), nbd::kRepErrUnknown},
      {option(nbd::kOptGo, "abc"), nbd::kRepErrInvalid},
      {option(nbd::kOptGo, std::string("\xff\xff\xff\xff\0\0", 6)), nbd::kRepErrInvalid},
      {option(nbd::kOptInfo, wanted("volume") + "x"), nbd::kRepErrInvalid},
      {option(nbd::kOptGo, wanted(std::string(5000, 'n'))), nbd::kRepErrTooBig},
      {option(nbd::kOptList, "x"), nbd::kRepErrInvalid},
      {option(nbd::kOptStartTls), nbd::kRepErrPolicy},
      {option(8), nbd::kRepErrUnsupported},
      {option(4711, "data"), nbd::kRepErrUnsupported},
      {option(4711, std::string(100'000, 'x')), nbd::kRepErrTooBig},
  };
  Server server;
  server.say(client_flags());
  for (const Row& row : rows) {
    CAPTURE(row.reply);
    CHECK(server.say(row.option) == 0);
    CHECK(server.replies() == std::vector<uint32_t>{row.reply});
    CHECK(server.negotiation.state() == State::kOption);
  }
  server.say(option(nbd::kOptGo, wanted("volume")));
  CHECK(server.negotiation.state() == State::kTransmission);
}

TEST_CASE("LIST names the one export, ABORT is acknowledged and ends") {
  Server server;
  server.say(client_flags() + option(nbd::kOptList) + option(nbd::kOptAbort) + "more");
  CHECK(server.replies() == std::vector<uint32_t>{nbd::kRepServer, nbd::kRepAck, nbd::kRepAck});
  CHECK(server.negotiation.state() == State::kEnd);
  CHECK(server.negotiation.failure().empty());
}

TEST_CASE("EXPORT_NAME has the old answer, with zeroes unless the client declined them") {
  for (const bool zeroes : {false, true}) {
    Server server;
    server.say(client_flags(zeroes ? 0 : nbd::kNoZeroes) + option(nbd::kOptExportName, "volume"));
    CHECK(server.negotiation.state() == State::kTransmission);
    CHECK(server.negotiation.output().size() == (zeroes ? 134 : 10));
  }
}

TEST_CASE("a client that asks and does not read is not heard until its answers are taken") {
  Server server;
  server.say(client_flags());
  std::string questions;
  for (int i = 0; i < 10'000; ++i) questions += option(nbd::kOptInfo, wanted("", {nbd::kInfoName}));
  size_t answers = 0;
  while (!questions.empty()) {
    questions = questions.substr(questions.size() - server.say(questions));
    CHECK(server.negotiation.output().size() < NbdNegotiation::kOutputBytesMax + 1000);
    answers += server.replies().size();
  }
  CHECK(answers == 40'000);
}

TEST_CASE("a stream that cannot be NBD ends the connection and says why") {
  const std::string streams[] = {
      client_flags(1u << 7),
      client_flags() + std::string(16, 'x'),
      client_flags(0) + option(nbd::kOptGo, wanted("volume")),
      client_flags() + option(nbd::kOptExportName, "other"),
      client_flags() + option(nbd::kOptExportName, std::string(9000, 'x')),
      client_flags() + option(nbd::kOptGo, std::string(2u << 20, 'x')),
  };
  for (const std::string& stream : streams) {
    Server server;
    server.say(stream);
    CHECK(server.negotiation.state() == State::kEnd);
    CHECK_FALSE(server.negotiation.failure().empty());
    CHECK(server.negotiation.output().empty());
  }
}

}  // namespace
}  // namespace tidemark
