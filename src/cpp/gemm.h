// Products of a few rows with packed weights: one register-blocked micro-kernel, used for
// everything that is a product here.
//
// Weights are packed as panels [K][NV][lanes]: NV vectors of columns side by side. A tile is R rows
// times P panels, held in registers while it runs over all of K, so each sum is formed in the same
// order whatever the number of rows: a row's result does not depend on the batch around it.
#pragma once

#include "simd.h"

namespace TT_ISA {
namespace {

template <class T, int R, int P, int NV>
struct Tile {
  Vec<T> v[R][P][NV];
};

// acc[r][p][n] += sum over k of a[r * row_stride + k] * panel p [k][n]
template <class T, class W, int R, int P, int NV>
TT_INLINE void multiply(Tile<T, R, P, NV>& acc, const T* a, idx row_stride, const W* b,
                        idx panel_stride, idx K) {
  constexpr int L = lanes<T>;
  for (idx k = 0; k < K; k++) {
    Vec<T> col[P][NV];
    TT_UNROLL for (int p = 0; p < P; p++) {
      TT_UNROLL for (int n = 0; n < NV; n++) {
        col[p][n] = weights<T>(b + p * panel_stride + (k * NV + n) * L);
      }
    }
    TT_UNROLL for (int r = 0; r < R; r++) {
      const T value = a[r * row_stride + k];
      TT_UNROLL for (int p = 0; p < P; p++) {
        TT_UNROLL for (int n = 0; n < NV; n++) acc.v[r][p][n] += value * col[p][n];
      }
    }
  }
}

// Rows of a full tile: about 24 sums in 32 registers. Remainders go in tiles of 4, 2 and 1 rows,
// which take several panels at once, so that enough sums are under way to hide the latency.
constexpr int MOST = TT_REGISTERS == 32 ? 24 : 12;
template <int NV>
constexpr int ROWS = MOST / NV > 8 ? 8 : MOST / NV;
template <int R, int NV>
constexpr int PANELS = R >= 4 || R * NV > 6 ? 1 : (12 + R * NV - 1) / (R * NV) > 4 ? 4 : (12 + R * NV - 1) / (R * NV);

// Calls body.run<R, P>(row, panel) so that all rows and panels are covered once. Panels are the
// outer loop: one is read from the second-level cache once and used for every row.
template <int R, int NV, class Body>
TT_INLINE void fewer(Body& body, idx row, idx rows, idx panels) {
  constexpr int P = PANELS<R, NV>;
  for (; row + R <= rows; row += R) {
    idx panel = 0;
    for (; panel + P <= panels; panel += P) body.template run<R, P>(row, panel);
    if constexpr (P > 1) {
      for (; panel < panels; panel++) body.template run<R, 1>(row, panel);
    }
  }
  if constexpr (R > 1) fewer<R / 2, NV>(body, row, rows, panels);
}

// One row reads every weight for one use of it: where they are more than the first-level cache
// holds, going back and forth over them finds in it what the last pass left there.
template <int NV, class Body>
TT_INLINE void single(Body& body, idx begin, idx end, bool back) {
  constexpr int P = NV == 1 ? 4 : NV > 3 ? 1 : 2;
  const idx whole = begin + (end - begin) / P * P;
  if (back) {
    for (idx panel = end; panel > whole; panel--) body.template run<1, 1>(0, panel - 1);
    for (idx panel = whole; panel > begin; panel -= P) body.template run<1, P>(0, panel - P);
  } else {
    for (idx panel = begin; panel < whole; panel += P) body.template run<1, P>(0, panel);
    for (idx panel = whole; panel < end; panel++) body.template run<1, 1>(0, panel);
  }
}

template <int NV, class Body>
TT_INLINE void cover(Body& body, idx rows, idx panels, bool back = false) {
  if (rows == 1) return single<NV>(body, 0, panels, back);
  constexpr int R = ROWS<NV>;
  const idx whole = rows / R * R;
  for (idx panel = 0; whole && panel < panels; panel++) {
    for (idx row = 0; row < whole; row += R) body.template run<R, 1>(row, panel);
  }
  fewer<(R > 4 ? 4 : 2), NV>(body, whole, rows, panels);
}

constexpr idx up(idx n, idx multiple) { return (n + multiple - 1) / multiple * multiple; }

// Packs columns [0, N) of B, B(k, n) = source(k)(n), into panels of NV vectors; zeros beyond N.
template <class T, class W, class Source>
void pack(W* out, idx K, idx N, int NV, idx first, idx last, const Source& source) {
  constexpr int L = lanes<T>;
  const idx width = NV * L;
  for (idx panel = first; panel < last; panel++) {
    for (idx k = 0; k < K; k++) {
      W* row = out + (panel * K + k) * width;
      const auto line = source(k);
      const idx begin = panel * width, count = std::min(width, N - begin);
      for (idx n = 0; n < count; n++) keep(row + n, line(begin + n));
      for (idx n = count; n < width; n++) keep(row + n, T(0));
    }
  }
}

// The same from columns as they lie in memory, K weights one after the other; null for zeros.
template <class T, class W, class Column>
void pack_columns(W* out, idx K, int NV, idx first, idx last, const Column& column) {
  constexpr idx BLOCK = 64;  // rows at a time, so that what is written stays in cache
  const idx width = NV * lanes<T>;
  for (idx panel = first; panel < last; panel++) {
    for (idx k = 0; k < K; k += BLOCK) {
      const idx count = std::min(BLOCK, K - k);
      W* to = out + (panel * K + k) * width;
      for (idx n = 0; n < width; n++) {
        const T* from = column(panel * width + n);
        for (idx i = 0; i < count; i++) keep(to + i * width + n, from ? from[k + i] : T(0));
      }
    }
  }
}

// out[row][n] = start + sum over k of a(row, k) * B(k, n), row-major; start is a bias per column,
// what out holds already, or zero.
template <class T, class W, int NV>
struct Plain {
  const T* a;
  idx a_stride;
  const W* b;
  idx K, N;
  T* out;
  idx out_stride;
  const T* bias;
  bool accumulate;

  template <int R, int P>
  TT_INLINE void run(idx row, idx panel) {
    constexpr int L = lanes<T>;
    Tile<T, R, P, NV> acc = {};
    const idx ps = K * NV * L, first = panel * NV * L;
    T* line = out + row * out_stride + first;
    if (bias) {
      TT_UNROLL for (int p = 0; p < P; p++) {
        TT_UNROLL for (int n = 0; n < NV; n++) {
          const Vec<T> start = load(bias + first + (p * NV + n) * L);
          TT_UNROLL for (int r = 0; r < R; r++) acc.v[r][p][n] = start;
        }
      }
    }
    multiply<T, W, R, P, NV>(acc, a + row * a_stride, a_stride, b + panel * ps, ps, K);
    const bool whole = first + P * NV * L <= N;
    if (whole && !accumulate) {
      TT_UNROLL for (int r = 0; r < R; r++) {
        TT_UNROLL for (int p = 0; p < P; p++) {
          TT_UNROLL for (int n = 0; n < NV; n++) {
            store(line + r * out_stride + (p * NV + n) * L, acc.v[r][p][n]);
          }
        }
      }
    } else if (whole) {
      TT_UNROLL for (int r = 0; r < R; r++) {
        TT_UNROLL for (int p = 0; p < P; p++) {
          TT_UNROLL for (int n = 0; n < NV; n++) {
            T* at = line + r * out_stride + (p * NV + n) * L;
            store(at, load(at) + acc.v[r][p][n]);
          }
        }
      }
    } else {
      edge(acc, line, first);
    }
  }

  template <int R, int P>
  __attribute__((noinline)) void edge(const Tile<T, R, P, NV>& acc, T* line, idx first) const {
    constexpr int L = lanes<T>;
    for (int r = 0; r < R; r++) {
      for (int n = 0; n < P * NV && first + n * L < N; n++) {
        T* at = line + r * out_stride + n * L;
        const idx left = N - first - n * L;
        Vec<T> v = acc.v[r][n / NV][n % NV];
        if (accumulate) v += load(at, left);
        store(at, v, left);
      }
    }
  }
};

template <class T, class W, int NV>
__attribute__((noinline)) void plain(const T* a, idx a_stride, idx rows, const W* b, idx K, idx N,
                                     T* out, idx out_stride, const T* bias, bool accumulate) {
  Plain<T, W, NV> body{a, a_stride, b, K, N, out, out_stride, bias, accumulate};
  cover<NV>(body, rows, (N + NV * lanes<T> - 1) / (NV * lanes<T>));
}

// Panels of four vectors and, for the columns left over, one narrower panel after them.
template <class T>
constexpr int WIDE = 4;

template <class T, class W, class Source>
void pack_plain(W* out, idx K, idx N, idx part, idx parts, const Source& source) {
  constexpr idx width = WIDE<T> * lanes<T>;
  const idx whole = N / width, begin = whole * part / parts, end = whole * (part + 1) / parts;
  pack<T>(out, K, N, WIDE<T>, begin, end, source);
  const idx left = N - whole * width;
  if (left > 0 && part == parts - 1) {
    const int nv = int((left + lanes<T> - 1) / lanes<T>);
    pack<T>(out + whole * K * width, K, left, nv, 0, 1,
            [&](idx k) {
              return [line = source(k), skip = whole * width](idx n) { return line(skip + n); };
            });
  }
}

// The same from rows as they lie in memory; null for zeros.
template <class T, class W, class Row>
void pack_rows(W* out, idx K, idx N, idx part, idx parts, const Row& row) {
  pack_plain<T>(out, K, N, part, parts, [&](idx k) {
    return [from = row(k)](idx n) { return from ? from[n] : T(0); };
  });
}

template <class T, class W>
void product(const T* a, idx a_stride, idx rows, const W* b, idx K, idx N, T* out, idx out_stride,
             bool accumulate) {
  constexpr idx width = WIDE<T> * lanes<T>;
  const idx whole = N / width, left = N - whole * width;
  if (whole) plain<T, W, 4>(a, a_stride, rows, b, K, whole * width, out, out_stride, nullptr, accumulate);
  if (left == 0) return;
  b += whole * K * width;
  out += whole * width;
  const idx narrow = (left + lanes<T> - 1) / lanes<T>;
  if (narrow == 1) {
    plain<T, W, 1>(a, a_stride, rows, b, K, left, out, out_stride, nullptr, accumulate);
  } else if (narrow == 2) {
    plain<T, W, 2>(a, a_stride, rows, b, K, left, out, out_stride, nullptr, accumulate);
  } else if (narrow == 3) {
    plain<T, W, 3>(a, a_stride, rows, b, K, left, out, out_stride, nullptr, accumulate);
  } else {
    plain<T, W, 4>(a, a_stride, rows, b, K, left, out, out_stride, nullptr, accumulate);
  }
}

// out[n] += sum over k of a[k] * B(k, n) for a single row and a whole panel, in two chains of sums;
// `back` runs over k from the end, as `single` does over panels.
template <class T, class W, int NV>
TT_INLINE void row_panel(const T* a, const W* b, idx K, T* out, bool back) {
  constexpr int L = lanes<T>;
  Vec<T> acc[2][NV] = {};
  const idx step = back ? -1 : 1;
  idx k = back ? K - 1 : 0, left = K;
  for (; left >= 2; left -= 2, k += 2 * step) {
    TT_UNROLL for (int c = 0; c < 2; c++) {
      const T value = a[k + c * step];
      const W* from = b + (k + c * step) * NV * L;
      TT_UNROLL for (int n = 0; n < NV; n++) acc[c][n] += value * weights<T>(from + n * L);
    }
  }
  if (left) {
    TT_UNROLL for (int n = 0; n < NV; n++) acc[0][n] += a[k] * weights<T>(b + (k * NV + n) * L);
  }
  TT_UNROLL for (int n = 0; n < NV; n++) {
    store(out + n * L, load(out + n * L) + (acc[0][n] + acc[1][n]));
  }
}

// `product` of a single row, added to out, whose end is padded to whole vectors.
template <class T, class W>
__attribute__((noinline)) void row_product(const T* a, const W* b, idx K, idx N, T* out, bool back) {
  constexpr idx L = lanes<T>, width = WIDE<T> * L;
  for (; N >= width; N -= width, b += K * width, out += width) {
    row_panel<T, W, 4>(a, b, K, out, back);
  }
  if (N > 3 * L) return row_panel<T, W, 4>(a, b, K, out, back);
  if (N > 2 * L) return row_panel<T, W, 3>(a, b, K, out, back);
  if (N > L) return row_panel<T, W, 2>(a, b, K, out, back);
  if (N > 0) row_panel<T, W, 1>(a, b, K, out, back);
}

// out[i][n] += sum over rows of a[row][i] * b[row][n]: a gradient of weights. Columns of a are
// what a tile's rows are; n runs over whole vectors (b and out are padded).
template <class T, int R, int NV>
TT_INLINE void outer_tile(const T* a, idx a_stride, const T* b, idx b_stride, idx rows, T* out,
                          idx out_stride) {
  constexpr int L = lanes<T>;
  Vec<T> acc[R][NV] = {};
  for (idx row = 0; row < rows; row++) {
    const T* line = a + row * a_stride;
    Vec<T> col[NV];
    TT_UNROLL for (int n = 0; n < NV; n++) col[n] = load(b + row * b_stride + n * L);
    TT_UNROLL for (int r = 0; r < R; r++) {
      TT_UNROLL for (int n = 0; n < NV; n++) acc[r][n] += line[r] * col[n];
    }
  }
  TT_UNROLL for (int r = 0; r < R; r++) {
    TT_UNROLL for (int n = 0; n < NV; n++) {
      T* p = out + r * out_stride + n * L;
      store(p, load(p) + acc[r][n]);
    }
  }
}

template <class T, int NV>
__attribute__((noinline)) void outer_columns(const T* a, idx a_stride, idx count, const T* b, idx b_stride, idx rows, T* out,
                   idx out_stride) {
  constexpr int R = ROWS<NV>;
  idx i = 0;
  for (; i + R <= count; i += R) {
    outer_tile<T, R, NV>(a + i, a_stride, b, b_stride, rows, out + i * out_stride, out_stride);
  }
  for (; i + 2 <= count; i += 2) {
    outer_tile<T, 2, NV>(a + i, a_stride, b, b_stride, rows, out + i * out_stride, out_stride);
  }
  for (; i < count; i++) {
    outer_tile<T, 1, NV>(a + i, a_stride, b, b_stride, rows, out + i * out_stride, out_stride);
  }
}

template <class T>
void outer(const T* a, idx a_stride, idx count, const T* b, idx b_stride, idx columns, idx rows,
           T* out, idx out_stride) {
  constexpr int L = lanes<T>;
  idx n = 0;
  const idx end = up(columns, L);
  for (; n + 4 * L <= end; n += 4 * L) {
    outer_columns<T, 4>(a, a_stride, count, b + n, b_stride, rows, out + n, out_stride);
  }
  const int left = int((end - n) / L);
  if (left == 1) outer_columns<T, 1>(a, a_stride, count, b + n, b_stride, rows, out + n, out_stride);
  if (left == 2) outer_columns<T, 2>(a, a_stride, count, b + n, b_stride, rows, out + n, out_stride);
  if (left == 3) outer_columns<T, 3>(a, a_stride, count, b + n, b_stride, rows, out + n, out_stride);
}

}  // namespace
}  // namespace TT_ISA
