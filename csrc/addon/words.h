// The words of lib/binding/native.ts for the core's enumerators, both ways.
#pragma once

#include "addon/argument.h"
#include "core/host.h"
#include "core/layout.h"
#include "core/volume.h"

namespace tidemark::addon {

inline constexpr Word<Role> kRoleWords[] = {
    {Role::kPrimary, "primary"},
    {Role::kSecondary, "secondary"},
};

inline constexpr Word<DiskState> kDiskWords[] = {
    {DiskState::kDiskless, "Diskless"},         {DiskState::kFailed, "Failed"},
    {DiskState::kInconsistent, "Inconsistent"}, {DiskState::kOutdated, "Outdated"},
    {DiskState::kConsistent, "Consistent"},     {DiskState::kUpToDate, "UpToDate"},
};

inline constexpr Word<Connection> kConnectionWords[] = {
    {Connection::kStandAlone, "StandAlone"},         {Connection::kPrepared, "Prepared"},
    {Connection::kExchangingMaps, "ExchangingMaps"}, {Connection::kSyncSource, "SyncSource"},
    {Connection::kSyncTarget, "SyncTarget"},         {Connection::kConnected, "Connected"},
};

inline constexpr Word<Protocol> kProtocolWords[] = {
    {Protocol::kA, "A"},
    {Protocol::kB, "B"},
    {Protocol::kC, "C"},
};

inline constexpr Word<OnIoError> kOnIoErrorWords[] = {
    {OnIoError::kPassOn, "pass-on"},
    {OnIoError::kDetach, "detach"},
    {OnIoError::kSuspend, "suspend"},
};

inline constexpr Word<SyncSide> kSideWords[] = {
    {SyncSide::kNone, "none"},
    {SyncSide::kSource, "source"},
    {SyncSide::kTarget, "target"},
};

inline constexpr Word<Placement> kPlacementWords[] = {
    {Placement::kEnd, "end"},
    {Placement::kStart, "start"},
    {Placement::kOffset, "offset"},
    {Placement::kExternal, "external"},
};

inline constexpr Word<EventKind> kEventWords[] = {
    {EventKind::kLinkDown, "linkDown"},       {EventKind::kLinkIdle, "linkIdle"},
    {EventKind::kLinkState, "linkState"},     {EventKind::kControl, "control"},
    {EventKind::kDiskState, "diskState"},     {EventKind::kRole, "role"},
    {EventKind::kSyncStarted, "syncStarted"}, {EventKind::kSyncFinished, "syncFinished"},
    {EventKind::kIoSuspended, "ioSuspended"}, {EventKind::kIoResumed, "ioResumed"},
    {EventKind::kIoError, "ioError"},         {EventKind::kFrontendFailed, "frontendFailed"},
};

template <typename Enum, size_t kCount>
const char* text_of(Enum value, const Word<Enum> (&words)[kCount]) {
  for (const Word<Enum>& word : words) {
    if (word.value == value) return word.text;
  }
  return "unknown";
}

}  // namespace tidemark::addon
