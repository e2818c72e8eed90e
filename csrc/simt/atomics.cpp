#include <atomic>

#include "simt/scheduler.h"

namespace ganops::simt {

namespace {

// Blocks on other OS threads may be at the same address, so the update is a real one. Returns the value before.
template <class T, class Function>
T update(T* address, const Function& next, const void* pc) {
  if (checking()) check_access(address, sizeof(T), AccessKind::kAtomic, pc);
  Worker::current()->counters.atomics++;
  T before, after;
  __atomic_load(address, &before, __ATOMIC_RELAXED);
  do {
    after = next(before);
  } while (!__atomic_compare_exchange(address, &before, &after, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return before;
}

template <class T>
T add(T* address, T value, const void* pc) {
  return update(address, [&](T before) { return static_cast<T>(before + value); }, pc);
}

template <class T>
T max(T* address, T value, const void* pc) {
  return update(address, [&](T before) { return before < value ? value : before; }, pc);
}

template <class T>
T compare_and_swap(T* address, T compare, T value, const void* pc) {
  return update(address, [&](T before) { return before == compare ? value : before; }, pc);
}

}  // namespace

float atomic_add(float* address, float value) {
  return add(address, value, __builtin_return_address(0));
}
double atomic_add(double* address, double value) {
  return add(address, value, __builtin_return_address(0));
}
int atomic_add(int* address, int value) {
  return add(address, value, __builtin_return_address(0));
}
unsigned atomic_add(unsigned* address, unsigned value) {
  return add(address, value, __builtin_return_address(0));
}
unsigned long long atomic_add(unsigned long long* address, unsigned long long value) {
  return add(address, value, __builtin_return_address(0));
}
int atomic_max(int* address, int value) {
  return max(address, value, __builtin_return_address(0));
}
unsigned atomic_max(unsigned* address, unsigned value) {
  return max(address, value, __builtin_return_address(0));
}
int atomic_cas(int* address, int compare, int value) {
  return compare_and_swap(address, compare, value, __builtin_return_address(0));
}
unsigned atomic_cas(unsigned* address, unsigned compare, unsigned value) {
  return compare_and_swap(address, compare, value, __builtin_return_address(0));
}
unsigned long long atomic_cas(unsigned long long* address, unsigned long long compare, unsigned long long value) {
  return compare_and_swap(address, compare, value, __builtin_return_address(0));
}

}  // namespace ganops::simt
