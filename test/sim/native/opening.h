// Which machine the volume that is being opened belongs to, from SimMachine's addon to the engine
// below it, and what came of it.
#pragma once

#include <memory>

#include "machine.h"

namespace tidemark::sim {

class SteppedSession;

struct Opening {
  Machine* machine = nullptr;
  std::shared_ptr<SteppedSession> session;
};
Opening& opening();

}  // namespace tidemark::sim
