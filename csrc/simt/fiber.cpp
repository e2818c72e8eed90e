#include "simt/fiber.h"

#include <sys/mman.h>

#include <new>

#ifndef GANOPS_SIMT_UCONTEXT
// void ganops_simt_switch(void** save, void* load): keeps the registers that a function call must keep on the stack
// that is left, and takes them from the stack that is entered.
asm(R"(
.text
.hidden ganops_simt_switch
.globl ganops_simt_switch
.type ganops_simt_switch, @function
ganops_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size ganops_simt_switch, . - ganops_simt_switch
)");
extern "C" void ganops_simt_switch(void** save, void* load);
#endif

namespace ganops::simt {

Fiber::Fiber() {
  const auto protection = PROT_READ | PROT_WRITE;
  const auto flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* mapped = mmap(nullptr, 2 * kStackBytes, protection, flags, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  const uintptr_t begin = reinterpret_cast<uintptr_t>(mapped);
  stack_ = (begin + kStackBytes - 1) & ~(kStackBytes - 1);
  if (stack_ > begin) munmap(mapped, stack_ - begin);
  munmap(reinterpret_cast<void*>(stack_ + kStackBytes), begin + kStackBytes - stack_);
  mprotect(reinterpret_cast<void*>(stack_), kPageBytes, PROT_NONE);  // a stack that overflows must not go unnoticed
}

Fiber::~Fiber() {
  munmap(reinterpret_cast<void*>(stack_), kStackBytes);
}

#ifdef GANOPS_SIMT_UCONTEXT

void Fiber::start(void (*entry)()) {
  getcontext(&continuation.state);
  continuation.state.uc_stack.ss_sp = reinterpret_cast<void*>(stack_ + kPageBytes);
  continuation.state.uc_stack.ss_size = reinterpret_cast<uintptr_t>(&context()) - stack_ - kPageBytes;
  continuation.state.uc_link = nullptr;
  makecontext(&continuation.state, entry, 0);
}

void switch_to(Continuation& from, Continuation& to) {
  swapcontext(&from.state, &to.state);
}

#else

void Fiber::start(void (*entry)()) {
  constexpr int kSavedRegisters = 6;
  void** top = reinterpret_cast<void**>(&context());
  *--top = nullptr;  // where entry would return to, were it to return
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < kSavedRegisters; i++) *--top = nullptr;
  continuation.stack_pointer = top;
}

void switch_to(Continuation& from, Continuation& to) {
  ganops_simt_switch(&from.stack_pointer, to.stack_pointer);
}

#endif

}  // namespace ganops::simt
