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

// A y: the transpose of A^T m.
GANOPS_INLINE void transform_output_gradient(const Vec<float> (&y)[kOutputs], Vec<float> (&m)[kInputs]) {
  const Vec<float> even_a = y[0] + kA2 * y[2], odd_a = kA * (y[1] + kA2 * y[3]);
  const Vec<float> even_b = y[0] + kB2 * y[2], odd_b = kB * (y[1] + kB2 * y[3]);
  m[0] = y[0];
  m[1] = even_a + odd_a;
  m[2] = even_a - odd_a;
  m[3] = even_b + odd_b;
  m[4] = even_b - odd_b;
  m[5] = y[3];
}

constexpr float kOfZero = 1 / (kA2 * kB2), kOfA = 1 / (2 * kA2 * (kA2 - kB2)), kOfB = 1 / (2 * kB2 * (kB2 - kA2));

// G g: the frequencies of three taps.
GANOPS_INLINE void transform_filter(const Vec<float> (&g)[kTaps], Vec<float> (&u)[kInputs]) {
  const Vec<float> even_a = kOfA * (g[0] + kA2 * g[2]), odd_a = kOfA * kA * g[1];
  const Vec<float> even_b = kOfB * (g[0] + kB2 * g[2]), odd_b = kOfB * kB * g[1];
  u[0] = kOfZero * g[0];
  u[1] = even_a + odd_a;
  u[2] = even_a - odd_a;
  u[3] = even_b + odd_b;
  u[4] = even_b - odd_b;
  u[5] = g[2];
}

// G^T u.
GANOPS_INLINE void transform_filter_gradient(const Vec<float> (&u)[kInputs], Vec<float> (&g)[kTaps]) {
  const Vec<float> even_a = kOfA * (u[1] + u[2]), even_b = kOfB * (u[3] + u[4]);
  g[0] = kOfZero * u[0] + even_a + even_b;
  g[1] = kOfA * kA * (u[1] - u[2]) + kOfB * kB * (u[3] - u[4]);
  g[2] = kA2 * even_a + kB2 * even_b + u[5];
}

// A row of the image from pad_x before it on, scaled, zeros around it; sample 4 i + c goes to phases[c * stride + i].
void read_phases(const WinogradToFrequencies& p, int64_t plane, int64_t y, float* phases, int64_t stride) {
  std::fill_n(phases, kOutputs * stride, 0.f);
  if (y < 0 || y >= p.height) return;
  const float scale = p.scale ? p.scale[plane] : 1;
  const float* row = p.image + (plane * p.height + y) * p.width - p.pad_x;
  for (int64_t c = 0; c < kOutputs; c++) {
    const int64_t first = std::max<int64_t>(ceil_div(p.pad_x - c + kOutputs, kOutputs) - 1, 0);
    const int64_t end = std::min((p.width + p.pad_x - c + kOutputs - 1) / kOutputs, stride);
    for (int64_t i = first; i < end; i++) phases[c * stride + i] = scale * row[kOutputs * i + c];
  }
}

// The frequencies of tiles of `samples` x `samples`. Vectors hold neighbouring tiles of a row, in one panel.
template <int64_t samples, class Transform>
void to_frequencies(const WinogradToFrequencies& p, const Transform& transform) {
  const int64_t stride = p.in_row + 1 + kLanes<float>, end = p.first + p.count;
  const int64_t first_row = p.first / p.in_row, end_row = ceil_div(end, p.in_row);
  const int64_t in_column = p.in_image / p.in_row;
  const int64_t first_image = first_row / in_column, end_image = ceil_div(end_row, in_column);
  parallel_for((end_image - first_image) * p.channels, 1, [&](int64_t begin_plane, int64_t end_plane) {
    std::vector<float> phases(samples * kOutputs * stride);
    for (int64_t i = begin_plane; i < end_plane; i++) {
      const int64_t n = first_image + i / p.channels, channel = i % p.channels;
      for (int64_t row = std::max(first_row, n * in_column); row < std::min(end_row, (n + 1) * in_column); row++) {
        for (int64_t y = 0; y < samples; y++)
          read_phases(p, n * p.channels + channel, (row - n * in_column) * kOutputs + y - p.pad_y,
                      phases.data() + y * kOutputs * stride, stride);
        const int64_t row_end = std::min((row + 1) * p.in_row, end);
        for (int64_t tile = std::max(row * p.in_row, p.first), lanes; tile < row_end; tile += lanes) {
          const int64_t lane = (tile - p.first) % p.panel, panel = (tile - p.first) / p.panel;
          lanes = std::min({kLanes<float>, row_end - tile, p.panel - lane});
          Vec<float> along_x[samples][kInputs];
          for (int64_t y = 0; y < samples; y++) {
            const float* from = phases.data() + y * kOutputs * stride + tile - row * p.in_row;
            Vec<float> d[samples];
            for (int64_t c = 0; c < samples; c++) d[c] = load(from + c % kOutputs * stride + c / kOutputs);
            transform(d, along_x[y]);
          }
          float* to = p.frequencies + (panel * p.channels + channel) * p.panel + lane;
          for (int64_t x = 0; x < kInputs; x++) {
            Vec<float> d[samples], v[kInputs];
            for (int64_t y = 0; y < samples; y++) d[y] = along_x[y][x];
            transform(d, v);
            for (int64_t y = 0; y < kInputs; y++) store_first(to + (y * kInputs + x) * p.frequency_stride, v[y], lanes);
          }
        }
      }
    }
  });
}

void winograd_input(const WinogradToFrequencies& p) {
  to_frequencies<kInputs>(p, [](const auto& d, auto& v) __attribute__((always_inline)) { transform_input(d, v); });
}

void winograd_output_gradient(const WinogradToFrequencies& p) {
  to_frequencies<kOutputs>(
      p, [](const auto& y, auto& m) __attribute__((always_inline)) { transform_output_gradient(y, m); });
}

// rows x columns of a product: outer products, one a channel, summed in registers; added to what other channels gave.
template <int rows, int vectors>
GANOPS_INLINE void product(const float* filters, const float* frequencies, int64_t channels, bool adds, float* to) {
  Vec<float> sum[rows][vectors] = {};
  for (int64_t k = 0; k < channels; k++) {
    Vec<float> column[vectors];
    for (int v = 0; v < vectors; v++) column[v] = load_once(frequencies + k * kPanel + v * kLanes<float>);
    for (int r = 0; r < rows; r++)
      for (int v = 0; v < vectors; v++) sum[r][v] += filters[k * kGroup + r] * column[v];
  }
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < vectors; v++) {
      float* at = to + r * kPanel + v * kLanes<float>;
      store(at, adds ? load(at) + sum[r][v] : sum[r][v]);
    }
}

// All rows of a group, as many at a time as there are registers for, and the first `columns` of a panel. The channels
// are summed in blocks, which rounds less than one long sum.
void group_product(const float* filters, const float* frequencies, int64_t channels, int64_t columns, float* to) {
  constexpr int rows = kRegisters >= 32 ? kGroup : kGroup / 2;
  constexpr int64_t lanes = kLanes<float>, kBlock = 128;
  for (int64_t k = 0; k < channels; k += kBlock)
    for (int64_t row = 0; row < kGroup; row += rows)
      for (int64_t column = 0; column < columns; column += 3 * lanes) {
        const float *left = filters + k * kGroup + row, *right = frequencies + k * kPanel + column;
        const int64_t count = std::min(kBlock, channels - k);
        float* at = to + row * kPanel + column;
        if (columns - column > 2 * lanes)
          product<rows, 3>(left, right, count, k > 0, at);
        else if (columns - column > lanes)
          product<rows, 2>(left, right, count, k > 0, at);
        else
          product<rows, 1>(left, right, count, k > 0, at);
      }
}

// The outputs of neighbouring tiles of one channel, from `tile` on; `from` is the first of their frequencies.
void write_tiles(const WinogradOutput& p, int64_t channel, int64_t tile, int64_t count, const float* from,
                 int64_t frequency_stride) {
  Vec<float> along_y[kOutputs][kInputs];
  for (int64_t x = 0; x < kInputs; x++) {
    Vec<float> m[kInputs], y[kOutputs];
    for (int64_t i = 0; i < kInputs; i++) m[i] = load(from + (i * kInputs + x) * frequency_stride);
    transform_output(m, y);
    for (int64_t i = 0; i < kOutputs; i++) along_y[i][x] = y[i];
  }
  float rows[kOutputs][kOutputs * kLanes<float>];
  for (int64_t i = 0; i < kOutputs; i++) {
    Vec<float> y[kOutputs];
    transform_output(along_y[i], y);
    interleave(y[0], y[2]);
    interleave(y[1], y[3]);
    interleave(y[0], y[1]);
    interleave(y[2], y[3]);
    for (int64_t v = 0; v < kOutputs; v++) store(rows[i] + v * kLanes<float>, y[v]);
  }
  for (int64_t done = 0, run; done < count; done += run) {
    const int64_t n = (tile + done) / p.in_image, in_image = (tile + done) % p.in_image;
    const int64_t top = in_image / p.in_row * kOutputs, left = in_image % p.in_row * kOutputs;
    run = std::min(count - done, p.in_row - left / kOutputs);
    const int64_t height = std::min(kOutputs, p.height - top), width = std::min(run * kOutputs, p.width - left);
    float* to = p.image + ((n * p.channels + channel) * p.height + top) * p.width + left;
    const float scale = p.scale ? p.scale[n * p.channels + channel] : 1;
    for (int64_t i = 0; i < height; i++)
      for (int64_t j = 0; j < width; j++) to[i * p.width + j] = scale * rows[i][done * kOutputs + j];
  }
}

// Some rows and one panel at a time, so that all their frequencies stay in a core's cache until they are outputs.
void winograd_output(const WinogradOutput& p) {
  constexpr int64_t kGroups = 4, kRows = kGroups * kGroup;
  const int64_t groups = ceil_div(p.channels, kGroup), panels = ceil_div(p.count, kPanel);
  parallel_for(ceil_div(groups, kGroups) * panels, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> products(kFrequencies * kRows * kPanel);
    for (int64_t i = begin; i < end; i++) {
      const int64_t first_group = i / panels * kGroups, end_group = std::min(first_group + kGroups, groups);
      const int64_t panel = i % panels, tiles = std::min(kPanel, p.count - panel * kPanel);
      for (int64_t f = 0; f < kFrequencies; f++)
        for (int64_t group = first_group; group < end_group; group++)
          group_product(p.filters + f * p.filter_stride + group * p.in_channels * kGroup,
                        p.frequencies + f * p.frequency_stride + panel * p.in_channels * kPanel, p.in_channels, tiles,
                        products.data() + (f * kRows + (group - first_group) * kGroup) * kPanel);
      const int64_t first_channel = first_group * kGroup;
      for (int64_t row = 0; row < std::min(kRows, p.channels - first_channel); row++)
        for (int64_t tile = 0; tile < tiles; tile += kLanes<float>)
          write_tiles(p, first_channel + row, p.first + panel * kPanel + tile, std::min(kLanes<float>, tiles - tile),
                      products.data() + row * kPanel + tile, kRows * kPanel);
    }
  });
}

// Vectors hold one input channel of a group's rows after the other.
void winograd_filter(const WinogradFilters& p) {
  const int64_t groups = ceil_div(p.out, kGroup), in_group = p.in * kGroup;
  const bool starts_vectors = elements_into_vector(p.frequencies) == 0 && p.frequency_stride % kLanes<float> == 0;
  const bool streamed = starts_vectors && in_group % kLanes<float> == 0 &&
                        is_streamed(kFrequencies * groups * in_group * static_cast<int64_t>(sizeof(float)));
  parallel_for(groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; group++)
      for (int64_t first = 0; first < in_group; first += kLanes<float>) {
        const int64_t lanes = std::min(kLanes<float>, in_group - first);
        float apart[kTaps * kTaps][kLanes<float>] = {};
        for (int64_t lane = 0; lane < lanes; lane++) {
          const int64_t out = group * kGroup + (first + lane) % kGroup, in = (first + lane) / kGroup;
          if (out >= p.out) continue;
          const float* taps = p.taps + (out * p.in + in) * kTaps * kTaps;
          for (int64_t tap = 0; tap < kTaps * kTaps; tap++) apart[tap][lane] = taps[tap];
        }
        Vec<float> along_x[kTaps][kInputs];
        for (int64_t i = 0; i < kTaps; i++) {
          const Vec<float> g[kTaps] = {load(apart[kTaps * i]), load(apart[kTaps * i + 1]), load(apart[kTaps * i + 2])};
          transform_filter(g, along_x[i]);
        }
        for (int64_t x = 0; x < kInputs; x++) {
          const Vec<float> g[kTaps] = {along_x[0][x], along_x[1][x], along_x[2][x]};
          Vec<float> u[kInputs];
          transform_filter(g, u);
          for (int64_t y = 0; y < kInputs; y++) {
            float* to = p.frequencies + (y * kInputs + x) * p.frequency_stride + group * in_group + first;
            streamed ? stream(to, u[y]) : store_first(to, u[y], lanes);
          }
        }
      }
    if (streamed) finish_streams();
  });
}

void winograd_filter_gradient(const WinogradFilterGradients& p) {
  constexpr int64_t kGrain = 64;
  parallel_for(ceil_div(p.count, kLanes<float>), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin * kLanes<float>; first < std::min(end * kLanes<float>, p.count);
         first += kLanes<float>) {
      const int64_t lanes = std::min(kLanes<float>, p.count - first);
      Vec<float> along_y[kInputs][kTaps];
      for (int64_t x = 0; x < kInputs; x++) {
        Vec<float> u[kInputs];
        for (int64_t y = 0; y < kInputs; y++)
          u[y] = load_first(p.frequencies + (y * kInputs + x) * p.count + first, lanes);
        transform_filter_gradient(u, along_y[x]);
      }
      float apart[kTaps * kTaps][kLanes<float>];
      for (int64_t i = 0; i < kTaps; i++) {
        Vec<float> u[kInputs], g[kTaps];
        for (int64_t x = 0; x < kInputs; x++) u[x] = along_y[x][i];
        transform_filter_gradient(u, g);
        for (int64_t j = 0; j < kTaps; j++) store(apart[kTaps * i + j], g[j]);
      }
      for (int64_t lane = 0; lane < lanes; lane++)
        for (int64_t tap = 0; tap < kTaps * kTaps; tap++)
          p.taps[(first + lane) * kTaps * kTaps + tap] += apart[tap][lane];
    }
  });
}

}  // namespace ganops::GANOPS_ISA

#if GANOPS_ISA_LAST
namespace ganops {
void launch_winograd_input_cpu(const WinogradToFrequencies& p) {
  GANOPS_BEST_ISA(winograd_input)(p);
}
void launch_winograd_output_cpu(const WinogradOutput& p) {
  GANOPS_BEST_ISA(winograd_output)(p);
}
void launch_winograd_output_gradient_cpu(const WinogradToFrequencies& p) {
  GANOPS_BEST_ISA(winograd_output_gradient)(p);
}
void launch_winograd_filter_cpu(const WinogradFilters& p) {
  GANOPS_BEST_ISA(winograd_filter)(p);
}
void launch_winograd_filter_gradient_cpu(const WinogradFilterGradients& p) {
  GANOPS_BEST_ISA(winograd_filter_gradient)(p);
}
}  // namespace ganops
#endif
