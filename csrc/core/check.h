// What must hold, or the process ends here: a state machine that went on from a broken invariant
// could lose data.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace tidemark {

inline void check(bool holds, const char* what) {
  if (holds) [[likely]]
    return;
  std::fprintf(stderr, "tidemark: internal error: %s\n", what);
  std::abort();
}

}  // namespace tidemark
