// The socket that an NBD server listens on.
#pragma once

#include <sys/types.h>

#include <string>

#include "engine/error.h"
#include "frontends/nbd_options.h"

namespace tidemark {

class NbdSocket {
 public:
  NbdSocket() = default;
  ~NbdSocket() { close(); }
  NbdSocket(const NbdSocket&) = delete;
  NbdSocket& operator=(const NbdSocket&) = delete;

  // A Unix socket of mode 0600, or TCP on a loopback address. The socket file of a process that
  // died is replaced; one that somebody listens on, and a file of another kind, is refused
  // (NBD_ADDRESS).
  bool open(const NbdOptions& options, EngineError* error);
  // Removes the socket file too, if it is still this one.
  void close();

  int fd() const { return fd_; }
  const std::string& address() const { return address_; }  // the path, or "host:port"
  bool tcp() const { return path_.empty(); }

 private:
  bool open_unix(const std::string& path, EngineError* error);
  bool open_tcp(const std::string& host, uint16_t port, EngineError* error);

  int fd_ = -1;
  std::string address_;
  std::string path_;
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

}  // namespace tidemark
