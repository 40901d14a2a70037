// The main function of tidemark-unit. Tests are the *_test.cc files beside this one.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
