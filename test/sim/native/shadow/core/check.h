// Stands in for the core's: in the simulator a broken invariant ends the seed, not the process, and
// says which one it was.
#pragma once

#include <stdexcept>
#include <string>

namespace tidemark {

inline void check(bool holds, const char* what) {
  if (holds) [[likely]]
    return;
  throw std::logic_error(std::string("internal error of the core: ") + what);
}

}  // namespace tidemark
