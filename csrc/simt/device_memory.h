// A model of the L2 cache: how much of what multiprocessors ask it for reaches device memory. The requests are counted;
// what becomes of them is modelled, as a GPU's replacement and the pace of its blocks are not public.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace ganops::simt {

// A warp's request for a sector, numbered through all buffers of a launch.
struct Request {
  uint32_t sector;
  uint32_t written;  // which bytes, a bit each; 0: it is read
};

// What a block requests, in turns: one ends at each barrier of the block.
struct BlockRequests {
  std::vector<Request> requests;
  std::vector<size_t> turns;  // where each ends

  // Of one instruction, whose first request was number `first`: lanes that want the same sector share a request.
  void add(size_t first, Request request);
  void end_turn();
};

// What a launch requests. Every buffer's first sector begins a line here, so that results do not change with addresses.
struct RequestLog {
  struct Placed {
    uint64_t sector;       // its first, of all memory
    uint32_t first, last;  // the numbers of its sectors
  };
  std::vector<Placed> buffers;
  std::vector<BlockRequests> blocks;

  void place(uintptr_t begin, uintptr_t end);  // the next buffer
  uint32_t number(size_t buffer, uintptr_t address) const;
};

struct Moved {
  uint64_t read = 0, written = 0;  // bytes
};

// Of sectors that lie in lines; the line that was used longest ago makes room. A sector is read when it is first asked
// for. Writes wait in the cache: a sector goes to device memory when its line leaves, and is read before that if a part
// of it was not written.
class Cache {
 public:
  static constexpr uint32_t kSectors = 4;  // of a line

  Cache(uint32_t sectors, uint64_t capacity_bytes);
  void request(Request request);
  void empty();
  const Moved& moved(uint32_t sector) const { return moved_[sector]; }

 private:
  static constexpr uint32_t kNone = ~uint32_t{0}, kWhole = ~uint32_t{0};
  struct Line {
    uint32_t older = kNone, newer = kNone;
    bool cached = false;
    std::array<bool, kSectors> valid{};
    std::array<uint32_t, kSectors> written{};
  };

  void unlink(uint32_t line);
  void make_newest(uint32_t line);
  void evict_oldest();

  std::vector<Line> lines_;  // of device memory
  std::vector<Moved> moved_;
  uint64_t capacity_, cached_ = 0;  // lines
  uint32_t oldest_ = kNone, newest_ = kNone;
};

// The bytes of each buffer that move between a cache of this size, empty before and after, and device memory. So many
// blocks are resident, and take turns; when one is done, the next takes its place.
std::vector<Moved> model_device_memory(const RequestLog& log, uint64_t cache_bytes, size_t resident_blocks);

}  // namespace ganops::simt
