// Which taps meet which samples, and the filter in the form in which the kernels apply it.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "common/math.h"
#include "upfirdn2d/params.h"

namespace ganops {

// The taps that meet an input sample, and no inserted zero, at one output sample: tap first_tap + i * up meets input
// sample first_input + i, for i < count. Input samples outside the image are zeros.
struct Phase {
  int64_t first_tap, first_input, count;
};

GANOPS_HOST_DEVICE Phase phase_at(const Upfirdn2dAxis& axis, int64_t out) {
  const int64_t start = out * axis.down - axis.padding;
  const int64_t first_input = start > 0 ? (start + axis.up - 1) / axis.up : -(-start / axis.up);
  const int64_t first_tap = first_input * axis.up - start;
  return {first_tap, first_input, first_tap < axis.taps ? (axis.taps - first_tap + axis.up - 1) / axis.up : 0};
}

// Taps in the order of the samples they meet, the gain included. Separable: x [taps_x] and y [taps_y]; else
// x [taps_y, taps_x] and no y.
template <class C>
struct Taps {
  std::vector<C> x, y;
};

// Writes a filter of rank 1 to within a rounding of its largest tap as column times row, by two steps of alternating
// least squares from its largest row; false for all others.
inline bool factorise(const std::vector<double>& f, double epsilon, std::vector<double>& column,
                      std::vector<double>& row) {
  const size_t width = row.size(), height = column.size();
  const size_t peak =
      std::max_element(f.begin(), f.end(), [](double a, double b) { return std::abs(a) < std::abs(b); }) - f.begin();
  const double largest = std::abs(f[peak]);
  if (!(largest > 0 && std::isfinite(largest))) return false;
  const double scale = std::sqrt(largest);
  for (size_t j = 0; j < width; j++) row[j] = f[peak / width * width + j] / scale;
  for (int step = 0; step < 2; step++) {
    double row_square = 0, column_square = 0;
    for (size_t j = 0; j < width; j++) row_square += row[j] * row[j];
    for (size_t i = 0; i < height; i++) {
      column[i] = 0;
      for (size_t j = 0; j < width; j++) column[i] += f[i * width + j] * row[j] / row_square;
      column_square += column[i] * column[i];
    }
    for (size_t j = 0; j < width; j++) {
      row[j] = 0;
      for (size_t i = 0; i < height; i++) row[j] += f[i * width + j] * column[i] / column_square;
    }
  }
  for (size_t i = 0; i < f.size(); i++)
    if (!(std::abs(f[i] - column[i / width] * row[i % width]) <= epsilon * largest)) return false;
  return true;
}

template <class C>
Taps<C> make_taps(const Upfirdn2dParams& p) {
  if (!p.f) return {{C(1)}, {C(p.gain)}};
  const C* f = static_cast<const C*>(p.f);
  std::vector<double> taps(f, f + (p.separable ? p.width.taps : p.width.taps * p.height.taps));
  if (!p.flip_filter) std::reverse(taps.begin(), taps.end());
  std::vector<double> column(p.height.taps), row(p.width.taps);
  if (p.separable) {
    column = row = taps;
  } else if (!factorise(taps, std::numeric_limits<C>::epsilon(), column, row)) {
    row = taps;
    column.clear();
  }
  for (double& tap : column.empty() ? row : column) tap *= p.gain;
  return {{row.begin(), row.end()}, {column.begin(), column.end()}};
}

}  // namespace ganops
