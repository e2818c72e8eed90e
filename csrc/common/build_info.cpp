// What this library was built with, for `python -m ganops info`.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <string>

#ifdef GANOPS_CUDA
#include <cuda_runtime_api.h>
#endif

#define GANOPS_TEXT_OF(...) #__VA_ARGS__
#define GANOPS_TEXT(...) GANOPS_TEXT_OF(__VA_ARGS__)

#if defined(__clang__)
#define GANOPS_COMPILER "clang++ " __clang_version__
#else
#define GANOPS_COMPILER "g++ " __VERSION__
#endif

namespace ganops {
namespace {

// The versions are those of the compiler, of the oldest torch that this library runs beside, and of the CUDA toolkit.
std::string build_info() {
  const auto torch_version = static_cast<uint64_t>(TORCH_TARGET_VERSION);
  std::string json = R"({"compiler": ")" GANOPS_COMPILER R"(", "torch": ")" + std::to_string(torch_version >> 56) +
                     '.' + std::to_string(torch_version >> 48 & 0xff) + '"';
#ifdef GANOPS_CUDA
  json += R"(, "toolkit": ")" + std::to_string(CUDART_VERSION / 1000) + '.' +
          std::to_string(CUDART_VERSION % 1000 / 10) +
          R"(", "architectures": ")" GANOPS_TEXT(GANOPS_ARCHITECTURES) R"(")";
#endif
  return json + '}';
}

}  // namespace
}  // namespace ganops

STABLE_TORCH_LIBRARY_FRAGMENT(ganops, m) {
  m.def("build_info() -> str");
}
STABLE_TORCH_LIBRARY_IMPL(ganops, CompositeExplicitAutograd, m) {
  m.impl("build_info", TORCH_BOX(&ganops::build_info));
}
