#include "common/cpu.h"

#include "winograd_conv2d/params.h"
#define GANOPS_KERNEL_FILE "winograd_conv2d/cpu.cpp"
#include "common/isa.h"

namespace ganops::GANOPS_ISA {

constexpr float kA2 = kA * kA, kB2 = kB * kB;

// B^T d: the frequencies of six samples.
GANOPS_INLINE void transform_input(const Vec<float> (&d)[kInputs], Vec<float> (&v)[kInputs]) {
  const Vec<float> even_a = d[4] - kB2 * d[2], odd_a = kA * (d[3] - kB2 * d[1]);
  const Vec<float> even_b = d[4] - kA2 * d[2], odd_b = kB * (d[3] - kA2 * d[1]);
  v[0] = kA2 * kB2 * d[0] - (kA2 + kB2) * d[2] + d[4];
  v[1] = even_a + odd_a;
  v[2] = even_a - odd_a;
  v[3] = even_b + odd_b;
  v[4] = even_b - odd_b;
  v[5] = kA2 * kB2 * d[1] - (kA2 + kB2) * d[3] + d[5];
}

// A^T m: four outputs of six frequencies.
GANOPS_INLINE void transform_output(const Vec<float> (&m)[kInputs], Vec<float> (&y)[kOutputs]) {
  const Vec<float> even_a = m[1] + m[2], odd_a = kA * (m[1] - m[2]);
  const Vec<float> even_b = m[3] + m[4], odd_b = kB * (m[3] - m[4]);
  y[0] = m[0] + even_a + even_b;
  y[1] = odd_a + odd_b;
  y[2] = kA2 * even_a + kB2 * even_b;
  y[3] = kA2 * odd_a + kB2 * odd_b + m[5];
}

// A row of the image from pad_x before it on, zeros around it; sample 4 i + c goes to phases[c * stride + i].
void read_phases(const WinogradParams& p, const float* image, int64_t y, float* phases, int64_t stride) {
  std::fill_n(phases, kOutputs * stride, 0.f);
  if (y < 0 || y >= p.height) return;
  const float* row = image + y * p.width - p.pad_x;
  for (int64_t c = 0; c < kOutputs; c++) {
    const int64_t first = std::max<int64_t>(ceil_div(p.pad_x - c + kOutputs, kOutputs) - 1, 0);
    const int64_t end = std::min((p.width + p.pad_x - c + kOutputs - 1) / kOutputs, stride);
    for (int64_t i = first; i < end; i++) phases[c * stride + i] = row[kOutputs * i + c];
  }
}

GANOPS_INLINE Vec<float> load_first(const float* from, int64_t count) {
  if (count >= kLanes<float>) return load(from);
  Vec<float> v{};
  std::memcpy(&v, from, count * sizeof(float));
  return v;
}

GANOPS_INLINE void store_first(float* to, Vec<float> v, int64_t count) {
  if (count >= kLanes<float>)
    store(to, v);
  else
    std::memcpy(to, &v, count * sizeof(float));
}

// Vectors hold neighbouring tiles of a row.
void winograd_input(const WinogradParams& p) {
  const int64_t tiles = p.batch * p.rows * p.tiles_x, stride = p.tiles_x + 1 + kLanes<float>;
  parallel_for(p.batch * p.channels, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> phases(kInputs * kOutputs * stride);
    for (int64_t plane = begin; plane < end; plane++) {
      const int64_t n = plane / p.channels, channel = plane % p.channels;
      for (int64_t row = 0; row < p.rows; row++) {
        for (int64_t i = 0; i < kInputs; i++)
          read_phases(p, p.image + plane * p.height * p.width, (p.first_row + row) * kOutputs + i - p.pad_y,
                      phases.data() + i * kOutputs * stride, stride);
        float* to = p.frequencies + channel * tiles + (n * p.rows + row) * p.tiles_x;
        for (int64_t tile = 0; tile < p.tiles_x; tile += kLanes<float>) {
          Vec<float> along_x[kInputs][kInputs];
          for (int64_t i = 0; i < kInputs; i++) {
            const float* from = phases.data() + i * kOutputs * stride + tile;
            Vec<float> d[kInputs];
            for (int64_t c = 0; c < kInputs; c++) d[c] = load(from + c % kOutputs * stride + c / kOutputs);
            transform_input(d, along_x[i]);
          }
          for (int64_t x = 0; x < kInputs; x++) {
            Vec<float> d[kInputs], v[kInputs];
            for (int64_t i = 0; i < kInputs; i++) d[i] = along_x[i][x];
            transform_input(d, v);
            for (int64_t y = 0; y < kInputs; y++)
              store_first(to + (y * kInputs + x) * p.frequency_stride + tile, v[y], p.tiles_x - tile);
          }
        }
      }
    }
  });
}

void winograd_output(const WinogradParams& p) {
  const int64_t tiles = p.batch * p.rows * p.tiles_x;
  const int64_t stride = (p.tiles_x + kLanes<float>)*kOutputs;
  parallel_for(p.batch * p.channels, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> rows(kOutputs * stride);
    for (int64_t plane = begin; plane < end; plane++) {
      const int64_t n = plane / p.channels, channel = plane % p.channels;
      for (int64_t row = 0; row < p.rows; row++) {
        const float* from = p.frequencies + channel * tiles + (n * p.rows + row) * p.tiles_x;
        for (int64_t tile = 0; tile < p.tiles_x; tile += kLanes<float>) {
          Vec<float> along_y[kOutputs][kInputs];
          for (int64_t x = 0; x < kInputs; x++) {
            Vec<float> m[kInputs], y[kOutputs];
            for (int64_t i = 0; i < kInputs; i++)
              m[i] = load_first(from + (i * kInputs + x) * p.frequency_stride + tile, p.tiles_x - tile);
            transform_output(m, y);
            for (int64_t i = 0; i < kOutputs; i++) along_y[i][x] = y[i];
          }
          for (int64_t i = 0; i < kOutputs; i++) {
            Vec<float> y[kOutputs];
            transform_output(along_y[i], y);
            interleave(y[0], y[2]);
            interleave(y[1], y[3]);
            interleave(y[0], y[1]);
            interleave(y[2], y[3]);
            float* to = rows.data() + i * stride + tile * kOutputs;
            store(to, y[0]);
            store(to + kLanes<float>, y[1]);
            store(to + 2 * kLanes<float>, y[2]);
            store(to + 3 * kLanes<float>, y[3]);
          }
        }
        const int64_t top = (p.first_row + row) * kOutputs, count = std::min(kOutputs, p.height - top);
        for (int64_t i = 0; i < count; i++)
          std::copy_n(rows.data() + i * stride, p.width, p.image + (plane * p.height + top + i) * p.width);
      }
    }
  });
}

}  // namespace ganops::GANOPS_ISA

#if GANOPS_ISA_LAST
namespace ganops {
void launch_winograd_input_cpu(const WinogradParams& p) {
  GANOPS_BEST_ISA(winograd_input)(p);
}
void launch_winograd_output_cpu(const WinogradParams& p) {
  GANOPS_BEST_ISA(winograd_output)(p);
}
}  // namespace ganops
#endif
