#include "simt/counters.h"

#include <algorithm>
#include <limits>

#include "simt/footprints.h"

namespace ganops::simt {

namespace {

constexpr unsigned kLanes = 32;
constexpr unsigned kBanks = 32;
constexpr unsigned kBankBytes = 4;
constexpr unsigned kWavefrontBytes = kBanks * kBankBytes;

// Sorts the values and drops the repeated ones; returns how many are left.
unsigned make_unique(uint64_t* values, unsigned count) {
  if (!std::is_sorted(values, values + count)) std::sort(values, values + count);
  return static_cast<unsigned>(std::unique(values, values + count) - values);
}

unsigned gather(const uint64_t* addresses, unsigned mask, uint64_t divisor, uint64_t* values) {
  unsigned count = 0;
  for (unsigned lane = 0; lane < kLanes; lane++) {
    if (mask >> lane & 1u) values[count++] = addresses[lane] / divisor;
  }
  return count;
}

constexpr uint64_t kNothing = std::numeric_limits<uint64_t>::max();

unsigned divide_up(unsigned a, unsigned b) {
  return (a + b - 1) / b;
}

}  // namespace

void Counters::add(const Counters& other) {
  blocks += other.blocks;
  barriers += other.barriers;
  collectives += other.collectives;
  mma_macs += other.mma_macs;
  flops += other.flops;
  atomics += other.atomics;
  global_bytes_read += other.global_bytes_read;
  global_bytes_written += other.global_bytes_written;
  global_sectors += other.global_sectors;
  global_sectors_ideal += other.global_sectors_ideal;
  shared_wavefronts += other.shared_wavefronts;
  shared_wavefronts_ideal += other.shared_wavefronts_ideal;
}

void AccessStatistics::add(const AccessStatistics& other) {
  pc = other.pc;
  shared = other.shared;
  write = other.write;
  buffer = other.buffer;
  bytes = other.bytes;
  executions += other.executions;
  lanes += other.lanes;
  moved += other.moved;
  transactions += other.transactions;
  ideal += other.ideal;
}

// An aligned access of at most 32 bytes lies in one sector.
unsigned count_sectors(const uint64_t* addresses, unsigned mask) {
  uint64_t sectors[kLanes];
  return make_unique(sectors, gather(addresses, mask, kSectorBytes, sectors));
}

unsigned count_bytes(const uint64_t* addresses, unsigned mask, unsigned bytes) {
  uint64_t distinct[kLanes];
  return make_unique(distinct, gather(addresses, mask, bytes, distinct)) * bytes;
}

Wavefronts count_wavefronts(const uint64_t* offsets, unsigned mask, unsigned bytes) {
  const unsigned lanes_at_once = std::min(kLanes, kWavefrontBytes / bytes);
  const unsigned words_per_lane = std::max(1u, bytes / kBankBytes);
  Wavefronts total{0, 0};
  for (unsigned first = 0; first < kLanes; first += lanes_at_once) {
    uint64_t words[kLanes];
    unsigned count = 0;
    for (unsigned lane = first; lane < first + lanes_at_once; lane++) {
      if (!(mask >> lane & 1u)) continue;
      for (unsigned i = 0; i < words_per_lane; i++) words[count++] = offsets[lane] / kBankBytes + i;
    }
    if (count == 0) continue;
    count = make_unique(words, count);
    unsigned per_bank[kBanks] = {};
    for (unsigned i = 0; i < count; i++) per_bank[words[i] % kBanks]++;
    total.actual += *std::max_element(per_bank, per_bank + kBanks);
    total.ideal += divide_up(count, kBanks);
  }
  return total;
}

void AccessLog::replay_instruction(const std::array<Access, 32>& lanes, unsigned count, unsigned mask,
                                   Counters& counters) {
  uint64_t addresses[kLanes];
  const Access* any = nullptr;
  for (unsigned lane = 0; lane < kLanes; lane++) {
    if (!(mask >> lane & 1u)) continue;
    addresses[lane] = lanes[lane].address;
    any = &lanes[lane];
  }
  const auto bytes = static_cast<unsigned>(any->bytes);
  AccessStatistics& statistics = table_[any->instruction()];
  statistics.pc = any->pc;
  statistics.shared = any->shared;
  statistics.write = any->write;
  statistics.buffer = static_cast<uint32_t>(any->buffer);
  statistics.bytes = bytes;
  statistics.executions++;
  statistics.lanes += count;
  if (any->shared) {
    const Wavefronts wavefronts = count_wavefronts(addresses, mask, bytes);
    statistics.transactions += wavefronts.actual;
    statistics.ideal += wavefronts.ideal;
    counters.shared_wavefronts += wavefronts.actual;
    counters.shared_wavefronts_ideal += wavefronts.ideal;
  } else {
    const unsigned sectors = count_sectors(addresses, mask), moved = count_bytes(addresses, mask, bytes);
    const unsigned ideal = divide_up(moved, kSectorBytes);
    statistics.moved += moved;
    statistics.transactions += sectors;
    statistics.ideal += ideal;
    counters.global_sectors += sectors;
    counters.global_sectors_ideal += ideal;
    (any->write ? counters.global_bytes_written : counters.global_bytes_read) += uint64_t{count} * bytes;
    if (block_requests_) keep_requests(lanes, mask);
  }
}

void AccessLog::begin_block(RequestLog* requests, uint64_t block) {
  requests_ = requests;
  block_requests_ = requests ? &requests->blocks[block] : nullptr;
}

void AccessLog::keep_requests(const std::array<Access, 32>& lanes, unsigned mask) {
  const size_t first = block_requests_->requests.size();
  for (unsigned lane = 0; lane < kLanes; lane++) {
    if (!(mask >> lane & 1u)) continue;
    const Access& access = lanes[lane];
    const auto bytes = static_cast<uint32_t>(((uint64_t{1} << access.bytes) - 1) << access.address % kSectorBytes);
    block_requests_->add(first, {requests_->number(access.buffer, access.address), access.write ? bytes : 0});
  }
}

void AccessLog::replay_warp(unsigned warp, Counters& counters) {
  const unsigned first = warp * kLanes;
  const unsigned lanes = std::min<unsigned>(kLanes, static_cast<unsigned>(threads_.size()) - first);
  std::array<size_t, kLanes> position{};
  for (;;) {
    uint64_t lowest = kNothing;
    for (unsigned lane = 0; lane < lanes; lane++) {
      const std::vector<Access>& log = threads_[first + lane];
      if (position[lane] < log.size()) lowest = std::min(lowest, log[position[lane]].instruction());
    }
    if (lowest == kNothing) break;
    std::array<Access, kLanes> together;
    unsigned count = 0, mask = 0;
    for (unsigned lane = 0; lane < lanes; lane++) {
      const std::vector<Access>& log = threads_[first + lane];
      if (position[lane] == log.size() || log[position[lane]].instruction() != lowest) continue;
      together[lane] = log[position[lane]++];
      mask |= 1u << lane;
      count++;
    }
    replay_instruction(together, count, mask, counters);
  }
  for (unsigned lane = 0; lane < lanes; lane++) threads_[first + lane].clear();
}

}  // namespace ganops::simt
