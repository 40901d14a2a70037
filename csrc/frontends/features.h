// What this machine offers Tidemark.
#pragma once

#include <string>

namespace tidemark {

// One JSON object: {"kernel": {...}, "io_uring": {...}, "ublk": {...}, "nbd": {...}}. For each
// thing that Tidemark uses it tells whether it is there, and what is missing otherwise. Needs no
// privileges: what may not be asked is told as such. Takes a few milliseconds; blocks for 2 s if
// the driver does not answer.
std::string features_json();

}  // namespace tidemark
