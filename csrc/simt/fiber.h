// Fibers: threads of control that change hands only when they say so.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simt/runtime.h"

// x86-64 has a switch of a few instructions below. Everything else, or x86-64 on request, takes the C library's
// ucontext, which makes a system call a switch.
#if !defined(__x86_64__) && !defined(GANOPS_SIMT_UCONTEXT)
#define GANOPS_SIMT_UCONTEXT
#endif

#ifdef GANOPS_SIMT_UCONTEXT
#include <ucontext.h>
#endif

namespace ganops::simt {

// A point of execution that was left and can be come back to.
struct Continuation {
#ifdef GANOPS_SIMT_UCONTEXT
  ucontext_t state;
#else
  void* stack_pointer = nullptr;
#endif
};

// Leaves `from` here and goes on at `to`; returns when somebody switches to `from`.
void switch_to(Continuation& from, Continuation& to);

class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Forgets what the fiber was doing: the next switch to it calls `entry`, which must not return.
  void start(void (*entry)());
  ThreadContext& context() { return context_of_stack(stack_); }

  Continuation continuation;

 private:
  uintptr_t stack_;
};

}  // namespace ganops::simt
