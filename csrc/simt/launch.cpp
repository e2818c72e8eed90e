#include "simt/launch.h"

#include <algorithm>
#include <mutex>
#include <numeric>
#include <random>
#include <thread>
#include <tuple>

#include "simt/scheduler.h"

namespace ganops {

cudaError_t device_properties(DeviceProperties* properties) {
  *properties = simt::options().device;
  return cudaSuccess;
}

namespace simt {

namespace {

// CUDA's limits, the same for every compute capability since 5.0.
constexpr unsigned kMaxThreads = 1024, kMaxBlockZ = 64, kMaxGridX = 0x7fffffffu, kMaxGridYZ = 65535;

std::string check_configuration(const LaunchRequest& request, const Options& options) {
  const auto [gx, gy, gz] = request.grid;
  const auto [bx, by, bz] = request.block;
  if (gx == 0 || gy == 0 || gz == 0 || bx == 0 || by == 0 || bz == 0) return "a grid or block of zero size";
  if (gx > kMaxGridX || gy > kMaxGridYZ || gz > kMaxGridYZ) return "a grid larger than CUDA allows";
  if (bx > kMaxThreads || by > kMaxThreads || bz > kMaxBlockZ || uint64_t{bx} * by * bz > kMaxThreads) {
    return "a block larger than CUDA allows";
  }
  if (request.shared_bytes > static_cast<size_t>(options.device.shared_bytes_per_block)) {
    return std::to_string(request.shared_bytes) + " bytes of shared memory, of which the device has " +
           std::to_string(options.device.shared_bytes_per_block);
  }
  return "";
}

// Counts the bytes that were read and written, and reports the bytes of outputs that were not.
BufferRecord finish(Launch& launch, TrackedBuffer& tracked) {
  const Buffer& buffer = tracked.buffer;
  BufferRecord record{buffer.name, buffer.bytes, static_cast<unsigned>(tracked.begin % kSectorBytes), 0, 0, {}};
  int64_t first_unwritten = -1;
  for (int64_t i = 0; i < buffer.bytes; i++) {
    const Cell& cell = *tracked.shadow.at(static_cast<size_t>(i));
    record.bytes_read += cell.read.valid;
    record.bytes_written += cell.write.valid;
    if (!cell.write.valid && first_unwritten < 0) first_unwritten = i;
  }
  if (buffer.use == Buffer::Use::kOutput && record.bytes_written < buffer.bytes && !launch.failed()) {
    launch.diagnostics.report({Fault::kUnwritten, std::to_string(buffer.bytes - record.bytes_written) + " of " +
                                                      std::to_string(buffer.bytes) + " bytes of " + record.name +
                                                      " were never written, the first at byte " +
                                                      std::to_string(first_unwritten)});
  }
  return record;
}

}  // namespace

Options& options() {
  static Options options;
  return options;
}

std::vector<LaunchRecord>& records() {
  static std::vector<LaunchRecord> records;
  return records;
}

Launch::Launch(const LaunchRequest& request, const Options& options) : request(request), options(options) {
  if (options.order == Order::kRandom) {
    block_order.resize(block_count());
    std::iota(block_order.begin(), block_order.end(), 0u);
    std::shuffle(block_order.begin(), block_order.end(), std::mt19937_64(options.seed));
  }
  if (!checking()) return;
  for (size_t i = 0; i < request.buffer_count; i++) {
    const Buffer& buffer = request.buffers[i];
    if (buffer.data != nullptr && buffer.bytes > 0) global.track(buffer);
  }
  if (!options.keep_requests) return;
  keeps_requests = true;
  for (const TrackedBuffer& tracked : global.buffers()) requests.place(tracked.begin, tracked.end);
  requests.blocks.resize(block_count());
}

void Launch::fail(cudaError_t failure) {
  int expected = cudaSuccess;
  error.compare_exchange_strong(expected, failure);
}

cudaError_t run(const LaunchRequest& request) {
  static std::mutex one_at_a_time;
  static std::vector<std::unique_ptr<Worker>> workers;
  const std::lock_guard<std::mutex> lock(one_at_a_time);

  LaunchRecord record{request.kernel, request.grid, request.block, 0, cudaSuccess, {}, {}, {}, {}, {}};
  if (options().refusal != cudaSuccess) return options().refusal;
  const std::string wrong = check_configuration(request, options());
  if (!wrong.empty()) {
    record.error = cudaErrorInvalidConfiguration;
    record.diagnostics.push_back({Fault::kLaunch, "asks for " + wrong});
    records().push_back(std::move(record));
    return cudaErrorInvalidConfiguration;
  }

  Launch launch(request, options());
  const auto count = static_cast<size_t>(std::min<uint64_t>(std::max(1u, options().os_threads), launch.block_count()));
  while (workers.size() < count) workers.push_back(std::make_unique<Worker>());
  std::vector<std::thread> os_threads;
  for (size_t i = 1; i < count; i++) os_threads.emplace_back([&, i] { workers[i]->run(launch); });
  workers[0]->run(launch);
  for (std::thread& os_thread : os_threads) os_thread.join();

  for (size_t i = 0; i < count; i++) {
    record.counters.add(workers[i]->counters);
    for (const auto& [key, statistics] : workers[i]->log.table()) record.accesses[key].add(statistics);
    record.shared_bytes = std::max(record.shared_bytes, workers[i]->shared.bytes_used());
  }
  for (TrackedBuffer& tracked : launch.global.buffers()) {
    record.buffers.push_back(finish(launch, tracked));
    std::vector<Footprint>& footprints = record.buffers.back().footprints;
    for (size_t i = 0; i < count; i++) {
      const std::vector<Footprint>& seen = workers[i]->footprints[tracked.index].all();
      footprints.insert(footprints.end(), seen.begin(), seen.end());
    }
    std::sort(footprints.begin(), footprints.end(), [](const Footprint& a, const Footprint& b) {
      return std::tie(a.block, a.write) < std::tie(b.block, b.write);
    });
  }
  record.error = static_cast<cudaError_t>(launch.error.load());
  record.diagnostics = launch.diagnostics.all();
  record.requests = std::move(launch.requests);
  records().push_back(std::move(record));
  return records().back().error;
}

}  // namespace simt
}  // namespace ganops
