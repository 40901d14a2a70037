#include "frontends/nbd_socket.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace tidemark {
namespace {

constexpr int kBacklog = 64;

bool fail(EngineError* error, int number, const char* call, const std::string& address,
          const std::string& why) {
  *error = {"NBD_ADDRESS", number, call,
            "cannot listen on '" + address + "': " + why +
                (number != 0 ? std::string(": ") + std::strerror(number) : "")};
  return false;
}

enum class Answer : uint8_t { kNobody, kSomebody, kUnknown };

// Whether a process listens on this socket file.
Answer ask(const sockaddr_un& name) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return Answer::kUnknown;
  const int result = connect(fd, reinterpret_cast<const sockaddr*>(&name), sizeof name);
  const int number = result == 0 ? 0 : errno;
  ::close(fd);
  // EAGAIN: somebody listens, and has its hands full.
  if (number == 0 || number == EAGAIN || number == EINPROGRESS) return Answer::kSomebody;
  return number == ECONNREFUSED ? Answer::kNobody : Answer::kUnknown;
}

}  // namespace

bool NbdSocket::open(const NbdOptions& options, EngineError* error) {
  const bool opened = options.socket_path.empty() ? open_tcp(options.host, options.port, error)
                                                  : open_unix(options.socket_path, error);
  if (!opened) {
    close();
    return false;
  }
  if (listen(fd_, kBacklog) != 0) {
    const int number = errno;
    close();
    return fail(error, number, "listen", address_, "the socket refuses");
  }
  return true;
}

bool NbdSocket::open_unix(const std::string& path, EngineError* error) {
  address_ = path;
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  if (path.size() >= sizeof name.sun_path) {
    return fail(error, 0, "", path,
                "the path has " + std::to_string(path.size()) + " bytes, a socket's has at most " +
                    std::to_string(sizeof name.sun_path - 1));
  }
  std::memcpy(name.sun_path, path.data(), path.size());
  fd_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd_ < 0) return fail(error, errno, "socket", path, "no socket");
  // The file that bind() makes inherits this mode, so that it never exists with a wider one.
  if (fchmod(fd_, 0600) != 0) return fail(error, errno, "fchmod", path, "no mode 0600");
  const auto* address = reinterpret_cast<const sockaddr*>(&name);
  int number = bind(fd_, address, sizeof name) == 0 ? 0 : errno;
  if (number == EADDRINUSE) {
    struct stat info = {};
    if (lstat(path.c_str(), &info) == 0 && !S_ISSOCK(info.st_mode)) {
      return fail(error, 0, "", path, "there is a file that is no socket");
    }
    if (ask(name) == Answer::kSomebody) {
      return fail(error, EADDRINUSE, "bind", path, "another process listens there");
    }
    if (ask(name) == Answer::kNobody) unlink(path.c_str());
    number = bind(fd_, address, sizeof name) == 0 ? 0 : errno;
  }
  if (number != 0) return fail(error, number, "bind", path, "the address is refused");
  path_ = path;
  struct stat info = {};
  if (lstat(path.c_str(), &info) == 0) {
    device_ = info.st_dev;
    inode_ = info.st_ino;
  }
  return true;
}

bool NbdSocket::open_tcp(const std::string& host, uint16_t port, EngineError* error) {
  address_ = host + ":" + std::to_string(port);
  sockaddr_in v4 = {};
  sockaddr_in6 v6 = {};
  v4.sin_family = AF_INET;
  v4.sin_port = v6.sin6_port = htons(port);
  v6.sin6_family = AF_INET6;
  const bool is_v4 = inet_pton(AF_INET, host.c_str(), &v4.sin_addr) == 1;
  const bool is_v6 = !is_v4 && inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr) == 1;
  const bool loopback = (is_v4 && (ntohl(v4.sin_addr.s_addr) >> 24) == 127) ||
                        (is_v6 && IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr));
  if (!loopback) {
    return fail(error, 0, "", address_,
                "NBD has no protection here, so that only loopback addresses are served "
                "(127.0.0.1, ::1)");
  }
  fd_ = socket(is_v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd_ < 0) return fail(error, errno, "socket", address_, "no socket");
  const int one = 1;
  setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  const auto* address =
      is_v4 ? reinterpret_cast<const sockaddr*>(&v4) : reinterpret_cast<const sockaddr*>(&v6);
  const auto bytes = static_cast<socklen_t>(is_v4 ? sizeof v4 : sizeof v6);
  if (bind(fd_, address, bytes) != 0) {
    return fail(error, errno, "bind", address_, "the address is refused");
  }
  // Port 0: the kernel chose.
  sockaddr_in6 bound = {};
  socklen_t bound_bytes = sizeof bound;
  if (getsockname(fd_, reinterpret_cast<sockaddr*>(&bound), &bound_bytes) == 0) {
    // sin_port and sin6_port lie at the same place.
    address_ = (is_v4 ? host : "[" + host + "]") + ":" + std::to_string(ntohs(bound.sin6_port));
  }
  return true;
}

void NbdSocket::close() {
  if (fd_ < 0) return;
  struct stat info = {};
  if (!path_.empty() && lstat(path_.c_str(), &info) == 0 && info.st_dev == device_ &&
      info.st_ino == inode_) {
    unlink(path_.c_str());
  }
  ::close(fd_);
  fd_ = -1;
}

}  // namespace tidemark
