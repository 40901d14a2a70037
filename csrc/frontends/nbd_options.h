// What an NBD export is started with.
#pragma once

#include <cstdint>
#include <string>

namespace tidemark {

struct NbdOptions {
  std::string socket_path;         // Unix socket, made with mode 0600; empty when `port` is used
  std::string host = "127.0.0.1";  // loopback only
  uint16_t port = 0;
  std::string export_name;  // the volume's name; "" is served as well
  uint32_t max_connections = 16;
  uint32_t queue_depth = 128;  // requests in flight per connection
};

}  // namespace tidemark
