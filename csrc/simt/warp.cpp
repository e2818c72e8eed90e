// The work of warp collectives.
#include <cstring>
#include <string>

#include "simt/scheduler.h"

// Builds the product twice, with AVX2 where the processor has it.
#if defined(__x86_64__)
#define GANOPS_SIMT_CLONES __attribute__((target_clones("avx2,fma", "default")))
#else
#define GANOPS_SIMT_CLONES
#endif

namespace ganops::simt {

namespace {

using Kind = LaneCall::Kind;

struct ShuffleData {
  Shuffle mode;
  uint64_t bits;
  unsigned operand;
  unsigned width;
  uint64_t result;
};

struct BallotData {
  bool predicate;
  uint32_t result;
};

struct LdmatrixData {
  uint32_t* registers;
  int matrices;
  bool transpose;
  const void* row;
};

struct MmaData {
  bool half;
  float* d;
  const uint32_t* a;
  const uint32_t* b;
  const float* c;
};

template <class Data>
Data& data_of(const LaneCall* call) {
  return *static_cast<Data*>(call->data);
}

template <class Function>
void for_each_lane(uint32_t mask, const Function& function) {
  for (; mask != 0; mask &= mask - 1) function(static_cast<unsigned>(__builtin_ctz(mask)));
}

// The lane that `lane` reads from. Lanes shuffle within groups of `width`; a lane whose source lies outside reads
// itself.
unsigned source_lane(const ShuffleData& data, unsigned lane) {
  const unsigned base = lane & ~(data.width - 1), index = lane & (data.width - 1);
  switch (data.mode) {
    case Shuffle::kIndex:
      return base + (data.operand & (data.width - 1));
    case Shuffle::kUp:
      return index < data.operand ? lane : lane - data.operand;
    case Shuffle::kDown:
      return index + data.operand >= data.width ? lane : lane + data.operand;
    case Shuffle::kXor:
      return (index ^ data.operand) >= data.width ? lane : base + (index ^ data.operand);
  }
  return lane;
}

void complete_shuffle(Worker& worker, const LaneCalls& calls, uint32_t mask) {
  const unsigned first_thread = worker.running() / kLanes * kLanes;
  for_each_lane(mask, [&](unsigned lane) {
    ShuffleData& data = data_of<ShuffleData>(calls[lane]);
    const unsigned source = source_lane(data, lane);
    if (mask >> source & 1u) {
      data.result = data_of<ShuffleData>(calls[source]).bits;
    } else {
      worker.report(first_thread + lane, Fault::kCollective,
                    "shuffles from lane " + std::to_string(source) + ", which takes no part", calls[lane]->pc);
      data.result = data.bits;
    }
  });
}

void complete_ballot(const LaneCalls& calls, uint32_t mask) {
  uint32_t result = 0;
  for_each_lane(mask, [&](unsigned lane) {
    result |= static_cast<uint32_t>(data_of<BallotData>(calls[lane]).predicate) << lane;
  });
  for_each_lane(mask, [&](unsigned lane) { data_of<BallotData>(calls[lane]).result = result; });
}

// PTX ISA, ldmatrix: lanes 8 m to 8 m + 7 hold the addresses of the rows of matrix m. Register m of a lane is then the
// fragment of row lane / 4, columns 2 (lane % 4) and the next; with .trans, of the transposed matrix. Compute
// capability 7.5 wants a good address from every lane, of one or two matrices as well.
void complete_ldmatrix(Worker& worker, const LaneCalls& calls, uint32_t mask) {
  constexpr unsigned kRows = 8;
  constexpr size_t kRowBytes = 16;
  const LdmatrixData& shape = data_of<LdmatrixData>(calls[0]);
  const auto matrices = static_cast<unsigned>(shape.matrices);
  uint16_t values[4][kRows][kRows];
  for (unsigned lane = 0; lane < kLanes; lane++) {
    const void* row = data_of<LdmatrixData>(calls[lane]).row;
    if (!worker.shared.contains(reinterpret_cast<uintptr_t>(row))) {
      worker.report(worker.running() / kLanes * kLanes + lane, Fault::kOutOfBounds,
                    "ldmatrix from memory that is not shared", calls[lane]->pc);
      worker.abort_launch(cudaErrorIllegalAddress);
    }
    if (lane >= matrices * kRows) continue;
    if (checking()) check_lane_access(lane, row, kRowBytes, AccessKind::kRead, calls[lane]->pc);
    std::memcpy(values[lane / kRows][lane % kRows], row, kRowBytes);
  }
  for_each_lane(mask, [&](unsigned lane) {
    const unsigned group = lane / 4, first = lane % 4 * 2;
    for (unsigned m = 0; m < matrices; m++) {
      const uint32_t low = shape.transpose ? values[m][first][group] : values[m][group][first];
      const uint32_t high = shape.transpose ? values[m][first + 1][group] : values[m][group][first + 1];
      data_of<LdmatrixData>(calls[lane]).registers[m] = low | high << 16;
    }
  });
}

constexpr unsigned kRows = 16, kColumns = 8, kDepth = 16;

template <class T>
float to_float(uint16_t bits) {
  if constexpr (std::is_same_v<T, half_t>) {
    return half_to_float({bits});
  } else {
    return bfloat16_to_float({bits});
  }
}

// The matrices of one product, row by row.
struct Product {
  uint16_t a[kRows * kDepth];
  uint16_t b[kDepth * kColumns];
  float d[kRows * kColumns];
};

// d = a b + d. The columns are the inner loop, so that it is a vector operation.
template <class T>
[[gnu::always_inline]] inline void multiply(Product& product) {
  float a[kRows * kDepth], b[kDepth * kColumns];
  for (unsigned i = 0; i < kRows * kDepth; i++) a[i] = to_float<T>(product.a[i]);
  for (unsigned i = 0; i < kDepth * kColumns; i++) b[i] = to_float<T>(product.b[i]);
  for (unsigned row = 0; row < kRows; row++) {
    float sum[kColumns];
    std::memcpy(sum, &product.d[row * kColumns], sizeof sum);
    for (unsigned k = 0; k < kDepth; k++) {
      for (unsigned column = 0; column < kColumns; column++)
        sum[column] += a[row * kDepth + k] * b[k * kColumns + column];
    }
    std::memcpy(&product.d[row * kColumns], sum, sizeof sum);
  }
}

GANOPS_SIMT_CLONES void multiply_half(Product& product) {
  multiply<half_t>(product);
}
GANOPS_SIMT_CLONES void multiply_bfloat16(Product& product) {
  multiply<bfloat16_t>(product);
}

// PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type". With group = lane / 4 and t = lane % 4:
//   a[i], i = 0..7: row group (i = 0, 1, 4, 5) or group + 8, column 2 t + i % 2, and 8 more for i >= 4
//   b[i], i = 0..3: row 2 t + i % 2, and 8 more for i >= 2; column group
//   c[i], i = 0..3: row group (i = 0, 1) or group + 8, column 2 t + i % 2
// Two 16-bit elements share a register, the lower i in the lower half.
void complete_mma(Worker& worker, const LaneCalls& calls) {
  Product product;
  for (unsigned lane = 0; lane < kLanes; lane++) {
    const MmaData& data = data_of<MmaData>(calls[lane]);
    const unsigned group = lane / 4, t = lane % 4;
    for (unsigned i = 0; i < 8; i += 2) {
      const unsigned row = group + i / 2 % 2 * 8, column = 2 * t + i / 4 * 8;
      std::memcpy(&product.a[row * kDepth + column], &data.a[i / 2], sizeof(uint32_t));
    }
    for (unsigned i = 0; i < 4; i++) {
      const unsigned row = 2 * t + i % 2 + i / 2 * 8;
      product.b[row * kColumns + group] = static_cast<uint16_t>(data.b[i / 2] >> i % 2 * 16);
      product.d[(group + i / 2 * 8) * kColumns + 2 * t + i % 2] = data.c[i];
    }
  }
  if (data_of<MmaData>(calls[0]).half) {
    multiply_half(product);
  } else {
    multiply_bfloat16(product);
  }
  for (unsigned lane = 0; lane < kLanes; lane++) {
    const unsigned group = lane / 4, t = lane % 4;
    float* d = data_of<MmaData>(calls[lane]).d;
    for (unsigned i = 0; i < 4; i++) d[i] = product.d[(group + i / 2 * 8) * kColumns + 2 * t + i % 2];
  }
  worker.counters.mma_macs += kRows * kColumns * kDepth;
}

}  // namespace

void complete_collective(Worker& worker, const LaneCalls& calls, uint32_t mask) {
  switch (calls[static_cast<unsigned>(__builtin_ctz(mask))]->kind) {
    case Kind::kSyncWarp:
      return;
    case Kind::kShuffle:
      return complete_shuffle(worker, calls, mask);
    case Kind::kBallot:
      return complete_ballot(calls, mask);
    case Kind::kLdmatrix:
      return complete_ldmatrix(worker, calls, mask);
    case Kind::kMma:
      return complete_mma(worker, calls);
  }
}

void sync_warp(uint32_t mask, Site site) {
  Worker::current()->join({Kind::kSyncWarp, mask, site, __builtin_return_address(0), nullptr});
}

uint64_t shuffle(Shuffle mode, uint32_t mask, uint64_t bits, unsigned operand, unsigned width, Site site) {
  ShuffleData data{mode, bits, operand, width, 0};
  Worker::current()->join({Kind::kShuffle, mask, site, __builtin_return_address(0), &data});
  return data.result;
}

uint32_t ballot(uint32_t mask, bool predicate, Site site) {
  BallotData data{predicate, 0};
  Worker::current()->join({Kind::kBallot, mask, site, __builtin_return_address(0), &data});
  return data.result;
}

void ldmatrix(uint32_t* registers, int matrices, bool transpose, const void* row, Site site) {
  LdmatrixData data{registers, matrices, transpose, row};
  Worker::current()->join({Kind::kLdmatrix, ~0u, site, __builtin_return_address(0), &data});
}

void mma(half_t, float* d, const uint32_t* a, const uint32_t* b, const float* c, Site site) {
  MmaData data{true, d, a, b, c};
  Worker::current()->join({Kind::kMma, ~0u, site, __builtin_return_address(0), &data});
}

void mma(bfloat16_t, float* d, const uint32_t* a, const uint32_t* b, const float* c, Site site) {
  MmaData data{false, d, a, b, c};
  Worker::current()->join({Kind::kMma, ~0u, site, __builtin_return_address(0), &data});
}

}  // namespace ganops::simt
