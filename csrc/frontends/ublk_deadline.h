// How long the scripts that handle a ublk device wait for what.
#pragma once

#include <chrono>
#include <utility>

#include "frontends/ublk_control.h"
#include "frontends/ublk_queue.h"

namespace tidemark::ublk_deadline {

inline constexpr auto kCommandTime = std::chrono::seconds(15);  // a command that waits for nobody
inline constexpr auto kStartTime =
    std::chrono::seconds(600);  // reads the partition table through the volume
inline constexpr auto kNodeTime = std::chrono::seconds(10);  // for a device node to appear
inline constexpr auto kQuiesceTime =
    std::chrono::seconds(30);  // for a dead daemon's device to be left by it
inline constexpr auto kOpenersTime = std::chrono::seconds(2);  // for udev's probes to be over
inline constexpr auto kSyncTime =
    std::chrono::seconds(3600);  // for what the page cache holds of the device
inline constexpr auto kStopTime = std::chrono::seconds(60);  // for requests that the volume has
inline constexpr auto kTagsTime = std::chrono::seconds(10);  // for tags to come back after a stop
inline constexpr auto kPoll = std::chrono::milliseconds(10);
// What waits for the volume may take long, but not without a request being done now and then.
inline constexpr auto kStall = std::chrono::seconds(20);
inline constexpr auto kForcedStall = std::chrono::seconds(5);

inline UblkClock::time_point in(UblkClock::duration time) { return UblkClock::now() + time; }

// True once the queue has done no request for some time.
inline UblkControl::GiveUp stalled(const UblkQueue& queue, UblkClock::duration time) {
  return [&queue, time, seen = queue.progress(), since = UblkClock::now()]() mutable {
    const auto now = UblkClock::now();
    if (std::exchange(seen, queue.progress()) != seen) since = now;
    return now - since >= time;
  };
}

}  // namespace tidemark::ublk_deadline
