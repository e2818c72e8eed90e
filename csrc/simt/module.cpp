// The emulator's interface to Python, as C functions for ctypes: settings in, a report in JSON out.
#include <dlfcn.h>

#include <cstdio>
#include <string>

#include "simt/launch.h"

#define GANOPS_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using namespace ganops::simt;

std::string quote(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + '"';
}

// Addresses are given from the start of this library, for its symbols and line numbers to be looked up.
std::string offset_in_library(const void* address) {
  static const char* const base = [] {
    Dl_info info;
    dladdr(reinterpret_cast<const void*>(&options), &info);
    return static_cast<const char*>(info.dli_fbase);
  }();
  return address == nullptr ? "null" : std::to_string(static_cast<const char*>(address) - base);
}

template <class Range, class Function>
std::string list(const Range& range, const Function& item) {
  std::string text = "[";
  for (const auto& value : range) text += (text.size() > 1 ? "," : "") + item(value);
  return text + "]";
}

template <class Index>
std::string triple(Index index) {
  return "[" + std::to_string(index.x) + "," + std::to_string(index.y) + "," + std::to_string(index.z) + "]";
}

std::string object(std::initializer_list<std::pair<const char*, std::string>> fields) {
  return "{" + [&] {
    std::string text;
    for (const auto& [key, value] : fields) text += (text.empty() ? "" : ",") + quote(key) + ":" + value;
    return text;
  }() + "}";
}

std::string json(const Diagnostic& diagnostic) {
  return object({{"fault", quote(fault_name(diagnostic.fault))},
                 {"message", quote(diagnostic.message)},
                 {"pc", offset_in_library(diagnostic.pc)},
                 {"block", diagnostic.has_thread ? triple(diagnostic.block) : "null"},
                 {"thread", diagnostic.has_thread ? triple(diagnostic.thread) : "null"},
                 {"count", std::to_string(diagnostic.count)}});
}

std::string json(const Counters& counters) {
  return object({{"blocks", std::to_string(counters.blocks)},
                 {"barriers", std::to_string(counters.barriers)},
                 {"collectives", std::to_string(counters.collectives)},
                 {"mma_macs", std::to_string(counters.mma_macs)},
                 {"flops", std::to_string(counters.flops)},
                 {"atomics", std::to_string(counters.atomics)},
                 {"global_bytes_read", std::to_string(counters.global_bytes_read)},
                 {"global_bytes_written", std::to_string(counters.global_bytes_written)},
                 {"global_sectors", std::to_string(counters.global_sectors)},
                 {"global_sectors_ideal", std::to_string(counters.global_sectors_ideal)},
                 {"shared_wavefronts", std::to_string(counters.shared_wavefronts)},
                 {"shared_wavefronts_ideal", std::to_string(counters.shared_wavefronts_ideal)}});
}

std::string json(const Footprint& footprint) {
  return object({{"block", std::to_string(footprint.block)},
                 {"write", footprint.write ? "true" : "false"},
                 {"first", std::to_string(footprint.first)},
                 {"last", std::to_string(footprint.last)},
                 {"bytes", std::to_string(footprint.bytes)},
                 {"sectors", std::to_string(footprint.sectors)}});
}

std::string json(const BufferRecord& buffer) {
  return object({{"name", quote(buffer.name)},
                 {"bytes", std::to_string(buffer.bytes)},
                 {"start", std::to_string(buffer.start)},
                 {"bytes_read", std::to_string(buffer.bytes_read)},
                 {"bytes_written", std::to_string(buffer.bytes_written)},
                 {"footprints", list(buffer.footprints, [](const Footprint& f) { return json(f); })}});
}

std::string json(const AccessTable::value_type& entry) {
  const AccessStatistics& statistics = entry.second;
  return object({{"pc", offset_in_library(reinterpret_cast<const void*>(statistics.pc))},
                 {"memory", statistics.shared ? "\"shared\"" : "\"global\""},
                 {"write", statistics.write ? "true" : "false"},
                 {"buffer", statistics.shared ? "null" : std::to_string(statistics.buffer)},
                 {"bytes", std::to_string(statistics.bytes)},
                 {"executions", std::to_string(statistics.executions)},
                 {"lanes", std::to_string(statistics.lanes)},
                 {"moved", std::to_string(statistics.moved)},
                 {"transactions", std::to_string(statistics.transactions)},
                 {"ideal", std::to_string(statistics.ideal)}});
}

std::string json(const LaunchRecord& record) {
  const auto item = [](const auto& value) { return json(value); };
  return object({{"kernel", offset_in_library(record.kernel)},
                 {"grid", triple(record.grid)},
                 {"block", triple(record.block)},
                 {"shared_bytes", std::to_string(record.shared_bytes)},
                 {"error", std::to_string(record.error)},
                 {"counters", json(record.counters)},
                 {"buffers", list(record.buffers, item)},
                 {"accesses", list(record.accesses, item)},
                 {"diagnostics", list(record.diagnostics, item)}});
}

}  // namespace

// order: 0 forward, 1 reverse, 2 random.
GANOPS_EXPORT void ganops_simt_configure(int order, uint64_t seed, unsigned os_threads) {
  options().order = static_cast<Order>(order);
  options().seed = seed;
  options().os_threads = os_threads;
}

// What device_properties is to say.
GANOPS_EXPORT void ganops_simt_set_device(int compute_capability, int multiprocessors, int64_t shared_bytes_per_block) {
  options().device = {compute_capability, multiprocessors, shared_bytes_per_block};
}

// Launches fail with this error from now on, unless it is 0.
GANOPS_EXPORT void ganops_simt_refuse(int error) {
  options().refusal = static_cast<cudaError_t>(error);
}

// Whether launches keep their requests for sectors, for ganops_simt_device_memory. The check build has them.
GANOPS_EXPORT void ganops_simt_keep_requests(int keep) {
  options().keep_requests = keep != 0;
}

// What a launch since the last clear moves of each of its buffers, modelled. The text lives until the next call.
GANOPS_EXPORT const char* ganops_simt_device_memory(int launch, uint64_t cache_bytes, uint64_t resident_blocks) {
  static std::string report;
  report = list(model_device_memory(records()[static_cast<size_t>(launch)].requests, cache_bytes, resident_blocks),
                [](const Moved& moved) {
                  return object({{"read", std::to_string(moved.read)}, {"written", std::to_string(moved.written)}});
                });
  return report.c_str();
}

GANOPS_EXPORT void ganops_simt_clear() {
  records().clear();
}

GANOPS_EXPORT int ganops_simt_checking() {
  return checking();
}

// The launches since the last clear. The text lives until the next call.
GANOPS_EXPORT const char* ganops_simt_report() {
  static std::string report;
  report = list(records(), [](const LaunchRecord& record) { return json(record); });
  return report.c_str();
}
