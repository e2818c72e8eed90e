// Tells callgrind from Python when to count. Outside of it these do nothing.
#include <valgrind/callgrind.h>

extern "C" void start_counting() {
  CALLGRIND_START_INSTRUMENTATION;
}

extern "C" void count_from_zero() {
  CALLGRIND_ZERO_STATS;
}

extern "C" void save_counts(const char* name) {
  CALLGRIND_DUMP_STATS_AT(name);
}
