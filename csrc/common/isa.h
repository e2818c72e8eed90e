// Compiles one kernel file several times, once per instruction set, and picks one at run time.
//
// A kernel file starts with
//     #define GANOPS_KERNEL_FILE "<op>/cpu.cpp"
//     #include "common/isa.h"
// after all its other includes (code outside the passes must stay baseline code), puts its kernels into
// namespace ganops::GANOPS_ISA, and its launcher below `#if GANOPS_ISA_LAST`, where GANOPS_BEST_ISA(kernel)
// is the pointer to this machine's version of `kernel`. One that defines GANOPS_KERNEL_HAS_BFLOAT16 before the include
// is compiled for AVX512-BF16, too: GANOPS_BEST_BFLOAT16_ISA(kernel) is that version where has_avx512_bf16().
#pragma once
#include "common/cpu.h"

#if defined(GANOPS_X86_64) && defined(__GNUC__) && !defined(__clang__)
#define GANOPS_ISA_LAST 0
#define GANOPS_VECTOR_BYTES 64
#ifdef GANOPS_KERNEL_HAS_BFLOAT16
#define GANOPS_ISA x86_64_v4_bfloat16
#define GANOPS_VECTOR_BFLOAT16
#pragma GCC push_options
#pragma GCC target("avx512bf16,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,f16c,bmi,bmi2,lzcnt,movbe,popcnt")
#include "common/simd.h"
#include GANOPS_KERNEL_FILE
#pragma GCC pop_options
#undef GANOPS_VECTOR_BFLOAT16
#undef GANOPS_ISA
#define GANOPS_BEST_BFLOAT16_ISA(kernel) \
  (::ganops::has_avx512_bf16() ? x86_64_v4_bfloat16::kernel : GANOPS_BEST_ISA(kernel))
#endif
#define GANOPS_ISA x86_64_v4
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,f16c,bmi,bmi2,lzcnt,movbe,popcnt")
#include "common/simd.h"
#include GANOPS_KERNEL_FILE
#pragma GCC pop_options
#undef GANOPS_ISA
#undef GANOPS_VECTOR_BYTES
#define GANOPS_VECTOR_BYTES 32
#define GANOPS_ISA x86_64_v3
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,bmi,bmi2,lzcnt,movbe,popcnt")
#include "common/simd.h"
#include GANOPS_KERNEL_FILE
#pragma GCC pop_options
#undef GANOPS_ISA
#undef GANOPS_VECTOR_BYTES
#undef GANOPS_ISA_LAST
#define GANOPS_BEST_ISA(kernel)                                             \
  (::ganops::cpu_isa() == ::ganops::CpuIsa::x86_64_v4   ? x86_64_v4::kernel \
   : ::ganops::cpu_isa() == ::ganops::CpuIsa::x86_64_v3 ? x86_64_v3::kernel \
                                                        : baseline::kernel)
#else
#define GANOPS_BEST_ISA(kernel) baseline::kernel
#define GANOPS_BEST_BFLOAT16_ISA(kernel) baseline::kernel
#endif

#define GANOPS_ISA_LAST 1
#define GANOPS_VECTOR_BYTES 16
#define GANOPS_ISA baseline
#include "common/simd.h"
