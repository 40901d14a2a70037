// The NBD protocol's numbers and byte order, as NetworkBlockDevice/nbd doc/proto.md defines them.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>

namespace tidemark::nbd {

// --- negotiation ---
inline constexpr uint64_t kInitMagic = 0x4e42444d41474943;    // "NBDMAGIC"
inline constexpr uint64_t kOptionMagic = 0x49484156454f5054;  // "IHAVEOPT"
inline constexpr uint64_t kOptionReplyMagic = 0x3e889045565a9;

// Flags of the server's greeting, and of the client's answer to it.
inline constexpr uint16_t kFixedNewstyle = 1;
inline constexpr uint16_t kNoZeroes = 2;

inline constexpr uint32_t kOptExportName = 1;
inline constexpr uint32_t kOptAbort = 2;
inline constexpr uint32_t kOptList = 3;
inline constexpr uint32_t kOptStartTls = 5;
inline constexpr uint32_t kOptInfo = 6;
inline constexpr uint32_t kOptGo = 7;

inline constexpr uint32_t kRepAck = 1;
inline constexpr uint32_t kRepServer = 2;
inline constexpr uint32_t kRepInfo = 3;
inline constexpr uint32_t kRepError = 1u << 31;
inline constexpr uint32_t kRepErrUnsupported = kRepError | 1;
inline constexpr uint32_t kRepErrPolicy = kRepError | 2;
inline constexpr uint32_t kRepErrInvalid = kRepError | 3;
inline constexpr uint32_t kRepErrUnknown = kRepError | 6;
inline constexpr uint32_t kRepErrTooBig = kRepError | 9;

inline constexpr uint16_t kInfoExport = 0;
inline constexpr uint16_t kInfoName = 1;
inline constexpr uint16_t kInfoBlockSize = 3;

// Transmission flags.
inline constexpr uint16_t kHasFlags = 1 << 0;
inline constexpr uint16_t kSendFlush = 1 << 2;
inline constexpr uint16_t kSendFua = 1 << 3;
inline constexpr uint16_t kSendTrim = 1 << 5;
inline constexpr uint16_t kSendWriteZeroes = 1 << 6;
inline constexpr uint16_t kCanMultiConn = 1 << 8;
inline constexpr uint16_t kSendFastZero = 1 << 11;

// --- transmission ---
inline constexpr uint32_t kRequestMagic = 0x25609513;
inline constexpr uint32_t kSimpleReplyMagic = 0x67446698;
inline constexpr size_t kRequestBytes = 28;
inline constexpr size_t kReplyBytes = 16;

inline constexpr uint16_t kCmdRead = 0;
inline constexpr uint16_t kCmdWrite = 1;
inline constexpr uint16_t kCmdDisconnect = 2;
inline constexpr uint16_t kCmdFlush = 3;
inline constexpr uint16_t kCmdTrim = 4;
inline constexpr uint16_t kCmdWriteZeroes = 6;

inline constexpr uint16_t kCmdFlagFua = 1 << 0;
inline constexpr uint16_t kCmdFlagNoHole = 1 << 1;
inline constexpr uint16_t kCmdFlagFastZero = 1 << 4;

inline constexpr uint32_t kErrorPermission = 1;
inline constexpr uint32_t kErrorIo = 5;
inline constexpr uint32_t kErrorMemory = 12;
inline constexpr uint32_t kErrorInvalid = 22;
inline constexpr uint32_t kErrorNoSpace = 28;
inline constexpr uint32_t kErrorNotSupported = 95;
inline constexpr uint32_t kErrorShutdown = 108;

// The most that one command may carry: what every client can rely on.
inline constexpr uint32_t kPayloadMax = 32u << 20;
inline constexpr size_t kNameMax = 4096;

// What a result of the volume (0 or -errno) is called here.
inline uint32_t error_of(int32_t result) {
  switch (-result) {
    case 0:
      return 0;
    case EPERM:
    case EACCES:
    case EROFS:
      return kErrorPermission;
    case ENOMEM:
      return kErrorMemory;
    case EINVAL:
      return kErrorInvalid;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return kErrorNoSpace;
    case EOPNOTSUPP:
      return kErrorNotSupported;
    case ESHUTDOWN:
      return kErrorShutdown;
    default:
      return kErrorIo;
  }
}

// --- big endian ---
template <typename T>
T load(const uint8_t* bytes) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) value = static_cast<T>(value << 8 | bytes[i]);
  return value;
}
template <typename T>
void store(uint8_t* bytes, T value) {
  for (size_t i = sizeof(T); i-- > 0; value = static_cast<T>(value >> 7 >> 1)) {
    bytes[i] = static_cast<uint8_t>(value);
  }
}
template <typename T>
void append(std::string* out, T value) {
  uint8_t bytes[sizeof(T)];
  store(bytes, value);
  out->append(reinterpret_cast<const char*>(bytes), sizeof bytes);
}

}  // namespace tidemark::nbd
