// One step of a stack of layers, for streams: few rows, weights as they are.
//
// Nothing is packed, so nothing can be stale. Each gate of a vector of units is as many products
// of rows with the input; their sums, one vector each, are added up across by halving.
#pragma once

#include "cells.h"
#include "internal.h"

namespace TT_ISA {
namespace {

// Lanes of two vectors side by side, for folding: in groups of 2 * half lanes, the low halves of
// both (which = 0) or the high halves.
template <class I, int L, int half, int which>
struct Folding {
  I lane;
  constexpr Folding() : lane{} {
    for (int k = 0; k < L; k++) {
      const int inside = k % (2 * half), from = k - inside + inside % half + which * half;
      lane[k] = from + (inside < half ? 0 : L);
    }
  }
};

// v[0] becomes the vector whose lane i is the sum over the lanes of v[i].
template <class T, int half>
TT_INLINE void fold(Vec<T> (&v)[lanes<T>]) {
  typedef typename Simd<T>::I I;
  if constexpr (half >= 1) {
    static const Folding<I, lanes<T>, half, 0> low;
    static const Folding<I, lanes<T>, half, 1> high;
    TT_UNROLL for (int i = 0; i < half; i++) {
      v[i] = __builtin_shuffle(v[i], v[i + half], low.lane) +
             __builtin_shuffle(v[i], v[i + half], high.lane);
    }
    fold<T, half / 2>(v);
  }
}

// acc[i] += w[row i] * x, lane by lane, over columns [0, K).
template <class T>
TT_INLINE void dots(Vec<T> (&acc)[lanes<T>], const T* w, idx stride, const T* x, idx K, idx rows) {
  constexpr int L = lanes<T>;
  const idx whole = K / L * L;
  if (rows >= L) {
    for (idx k = 0; k < whole; k += L) {
      const Vec<T> value = load(x + k);
      TT_UNROLL for (int i = 0; i < L; i++) acc[i] += load(w + i * stride + k) * value;
    }
  } else {
    for (idx i = 0; i < rows; i++) {
      for (idx k = 0; k < whole; k += L) acc[i] += load(w + i * stride + k) * load(x + k);
    }
  }
  if (whole == K) return;
  const Vec<T> value = load(x + whole, K - whole);
  for (idx i = 0; i < L && i < rows; i++) {
    acc[i] += load(w + i * stride + whole, K - whole) * value;
  }
}

template <class T>
struct StepLayer {
  const T *w_ih, *w_hh, *b_ih, *b_hh, *x, *h, *c;
  T *h_next, *c_next;
  idx I, H, kind;

  TT_INLINE Vec<T> sum(int gate, idx unit, idx rows, bool input, bool recurrent) const {
    constexpr int L = lanes<T>;
    Vec<T> acc[L] = {};
    const idx row = gate * H + unit;
    if (input) dots(acc, w_ih + row * I, I, x, I, rows);
    if (recurrent) dots(acc, w_hh + row * H, H, h, H, rows);
    fold<T, lanes<T> / 2>(acc);
    Vec<T> total = acc[0];
    if (input && b_ih) total += load(b_ih + row, rows);
    if (recurrent && b_hh) total += load(b_hh + row, rows);
    return total;
  }

  template <class C>
  void units(idx begin, idx end) const {
    constexpr int L = lanes<T>;
    for (idx unit = begin; unit < end; unit += L) {
      const idx rows = H - unit < L ? H - unit : L;
      Vec<T> sums[C::GATES];
      T inputs[3 * L], cell[L];
      for (int gate = 0; gate < C::GATES; gate++) {
        const bool apart = C::HIDDEN_BIAS && gate == C::GATES - 1;
        sums[gate] = sum(gate, unit, rows, !apart, true);
        if (apart) store(inputs + 2 * L, sum(gate, unit, rows, true, false));
      }
      if (C::CELL_STATE) store(cell, load(c + unit, rows));
      const Vec<T> after = C::forward(kind, sums, 0, inputs, load(h + unit, rows), cell, nullptr);
      store(h_next + unit, after, rows);
      if (C::CELL_STATE) store(c_next + unit, load(cell), rows);
    }
  }

  void run(idx begin, idx end) const {
    with_cell<T>(kind, [&](auto cell) { units<decltype(cell)>(begin, end); });
  }
};

template <class T>
struct StepTeam {
  StepLayer<T> layer;
  int threads;
};

template <class T>
void step_part(void* context, int part) {
  const StepTeam<T>& team = *static_cast<const StepTeam<T>*>(context);
  const idx blocks = up(team.layer.H, lanes<T>) / lanes<T>;
  const idx begin = blocks * part / team.threads, end = blocks * (part + 1) / team.threads;
  const idx last = end * lanes<T> < team.layer.H ? end * lanes<T> : team.layer.H;
  team.layer.run(begin * lanes<T>, last);
}

// Weights that fill a core's own cache are read by two cores faster than by one.
constexpr idx SHARED_WEIGHTS = 150000;

template <class T>
TT_INLINE T* shifted(const void* base, idx place) {
  return base ? const_cast<T*>(static_cast<const T*>(base)) + place : nullptr;
}

template <class T>
int step_of(const tt_layers& s, const void* x, const void* h, const void* c, void* h_next,
            void* c_next, idx B) {
  const idx gates = gates_of(s.kind);
  const int threads = int(s.threads > TT_MAX_THREADS ? TT_MAX_THREADS : s.threads);
  for (idx layer = 0; layer < s.layers; layer++) {
    const T* const* w = reinterpret_cast<const T* const*>(s.weights) + layer * 4;
    const idx I = layer ? s.H : s.I;
    const bool alone = gates * s.H * (I + s.H) < SHARED_WEIGHTS;
    for (idx b = 0; b < B; b++) {
      const idx place = (layer * B + b) * s.H;
      const T* input = layer ? shifted<T>(h_next, place - B * s.H) : shifted<T>(x, b * I);
      StepTeam<T> team{{w[0], w[1], w[2], w[3], input, shifted<T>(h, place), shifted<T>(c, place),
                        shifted<T>(h_next, place), shifted<T>(c_next, place), I, s.H, s.kind},
                       alone ? 1 : threads};
      tt_parallel(team.threads, step_part<T>, &team);
    }
  }
  return 0;
}

}  // namespace
}  // namespace TT_ISA
