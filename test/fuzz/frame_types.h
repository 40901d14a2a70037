// The types of frames that the codec knows: a type that is added there is tried at once.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "core/frame.h"

namespace tidemark::fuzz {

inline const std::vector<FrameType>& frame_types() {
  static const std::vector<FrameType> types = [] {
    const std::string unknown = frame_type_text(static_cast<FrameType>(0));
    std::vector<FrameType> out;
    for (int type = 0; type < 256; ++type) {
      if (frame_type_text(static_cast<FrameType>(type)) != unknown) {
        out.push_back(static_cast<FrameType>(type));
      }
    }
    return out;
  }();
  return types;
}

}  // namespace tidemark::fuzz
