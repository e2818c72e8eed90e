#include "simt/device_memory.h"

#include <algorithm>

#include "simt/footprints.h"

namespace ganops::simt {

void BlockRequests::add(size_t first, Request request) {
  for (size_t i = requests.size(); i > first; i--) {
    if (requests[i - 1].sector != request.sector) continue;
    requests[i - 1].written |= request.written;
    return;
  }
  requests.push_back(request);
}

void BlockRequests::end_turn() {
  if (requests.size() > (turns.empty() ? 0 : turns.back())) turns.push_back(requests.size());
}

void RequestLog::place(uintptr_t begin, uintptr_t end) {
  const uint32_t after = buffers.empty() ? 0 : buffers.back().last + 1;
  const uint32_t first = (after + Cache::kSectors - 1) / Cache::kSectors * Cache::kSectors;
  const uint64_t sector = begin / kSectorBytes;
  buffers.push_back({sector, first, first + static_cast<uint32_t>((end - 1) / kSectorBytes - sector)});
}

uint32_t RequestLog::number(size_t buffer, uintptr_t address) const {
  return buffers[buffer].first + static_cast<uint32_t>(address / kSectorBytes - buffers[buffer].sector);
}

Cache::Cache(uint32_t sectors, uint64_t capacity_bytes)
    : lines_((sectors + kSectors - 1) / kSectors),
      moved_(sectors + kSectors),
      capacity_(std::max<uint64_t>(1, capacity_bytes / (kSectors * kSectorBytes))) {}

void Cache::request(Request request) {
  const uint32_t number = request.sector / kSectors, sector = request.sector % kSectors;
  Line& line = lines_[number];
  if (line.cached) {
    unlink(number);
  } else if (cached_ == capacity_) {
    evict_oldest();
  }
  make_newest(number);
  if (request.written) {
    line.written[sector] |= request.written;
  } else if (!line.valid[sector] && line.written[sector] != kWhole) {
    line.valid[sector] = true;
    moved_[request.sector].read += kSectorBytes;
  }
}

void Cache::empty() {
  while (oldest_ != kNone) evict_oldest();
}

void Cache::unlink(uint32_t number) {
  const Line& line = lines_[number];
  (line.older == kNone ? oldest_ : lines_[line.older].newer) = line.newer;
  (line.newer == kNone ? newest_ : lines_[line.newer].older) = line.older;
  cached_--;
}

void Cache::make_newest(uint32_t number) {
  Line& line = lines_[number];
  line.cached = true;
  line.older = newest_;
  line.newer = kNone;
  (newest_ == kNone ? oldest_ : lines_[newest_].newer) = number;
  newest_ = number;
  cached_++;
}

void Cache::evict_oldest() {
  const uint32_t number = oldest_;
  Line& line = lines_[number];
  for (uint32_t i = 0; i < kSectors; i++) {
    if (!line.written[i]) continue;
    Moved& moved = moved_[number * kSectors + i];
    if (!line.valid[i] && line.written[i] != kWhole) moved.read += kSectorBytes;
    moved.written += kSectorBytes;
  }
  unlink(number);
  line = {};
}

std::vector<Moved> model_device_memory(const RequestLog& log, uint64_t cache_bytes, size_t resident_blocks) {
  struct Resident {
    const BlockRequests* block;
    size_t turn = 0, at = 0;
  };
  if (log.buffers.empty()) return {};
  Cache cache(log.buffers.back().last + 1, cache_bytes);
  std::vector<Resident> resident;
  for (size_t next = 0;;) {
    while (resident.size() < std::max<size_t>(1, resident_blocks) && next < log.blocks.size()) {
      resident.push_back({&log.blocks[next++]});
    }
    if (resident.empty()) break;
    for (Resident& r : resident) {
      if (r.turn == r.block->turns.size()) continue;
      for (const size_t end = r.block->turns[r.turn++]; r.at < end; r.at++) cache.request(r.block->requests[r.at]);
    }
    const auto is_done = [](const Resident& r) { return r.turn == r.block->turns.size(); };
    resident.erase(std::remove_if(resident.begin(), resident.end(), is_done), resident.end());
  }
  cache.empty();

  std::vector<Moved> moved;
  for (const RequestLog::Placed& buffer : log.buffers) {
    moved.emplace_back();
    for (uint32_t sector = buffer.first; sector <= buffer.last; sector++) {
      moved.back().read += cache.moved(sector).read;
      moved.back().written += cache.moved(sector).written;
    }
  }
  return moved;
}

}  // namespace ganops::simt
