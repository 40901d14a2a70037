#include <doctest/doctest.h>

#include <string_view>

TEST_CASE("the build passes the package's version on") {
  const std::string_view version = TIDEMARK_VERSION;
  CHECK(version.find('.') != std::string_view::npos);
  CHECK(version.find('"') == std::string_view::npos);
}
