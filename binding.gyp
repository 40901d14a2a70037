# The build that ships: node-gyp runs it when no prebuilt binary fits, and prebuildify to make those.
# Sources and flags are kept in step with CMakeLists.txt; the list of sources is one file for both.
{
  "variables": {
    # Clang would need a linker or a plugin that is not everywhere.
    "whole_program%": "<!(${CXX:-g++} --version | grep -qi clang || echo -flto=auto)",
  },
  "includes": ["csrc/sources.json"],
  "targets": [
    {
      "target_name": "tidemark",
      "sources": [
        "<@(core_sources)",
        "<@(engine_sources)",
        "<@(frontend_sources)",
        "<@(addon_sources)",
      ],
      "include_dirs": [
        "csrc",
        "<!(node -p \"require('node-addon-api').include_dir\")",
      ],
      "defines": [
        "NAPI_VERSION=9",
        "NAPI_DISABLE_CPP_EXCEPTIONS",
        "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS",
        "TIDEMARK_VERSION=\"<!(node -p \"require('./package.json').version\")\"",
      ],
      "cflags_cc!": ["-fno-exceptions", "-fno-rtti", "-std=gnu++17", "-std=gnu++20"],
      "cflags_cc": ["-std=c++20", "-O2", "<(whole_program)", "-Wall", "-Wextra", "-fvisibility=hidden"],
      "ldflags": ["-O2", "<(whole_program)"],
      "libraries": ["-pthread"],
    },
  ],
}
