// What one cell does with its sums, forward and backward, a vector of units at a time.
//
// PANEL: vectors of sums per tile column (gates side by side, or plain units for the RNN).
// SAVED: vectors kept per vector of units for the backward pass. GRADS: vectors of gradients of
// the pre-activations; those of the input side begin at the first, those of the recurrent side at
// RECURRENT (the GRU's differ in the candidate, which the reset gate multiplies).
#pragma once

#include "gemm.h"
#include "throughtime.h"

namespace TT_ISA {
namespace {

// S_t = act(X_t W_x + O_{t-1}), O_t = S_t W_rec
template <class T, int NV>
struct Rnn {
  static constexpr int GATES = 1, PANEL = NV, UNITS = NV, SAVED = 0, GRADS = 1, RECURRENT = 0;
  static constexpr bool CELL_STATE = false, HIDDEN_BIAS = false;
  typedef Vec<T> V;

  static TT_INLINE V forward(idx kind, const V* sums, int n, const T*, V, T*, T*) {
    if (kind == TT_RNN_TANH) return tanh(sums[n]);
    return kind == TT_RNN_RELU ? relu(sums[n]) : sums[n];
  }
  // Takes dh of the output; writes the gradients and what goes to h_{t-1} besides the recurrence.
  static TT_INLINE void backward(idx kind, V dh, V, V y, const T*, V, V&, V* grads, V& direct) {
    const V zero = {};
    grads[0] = dh;
    if (kind == TT_RNN_TANH) grads[0] = dh * (1 - y * y);
    if (kind == TT_RNN_RELU) grads[0] = y <= zero ? zero : dh;  // NaN lets it pass, as in torch
    direct = zero;
  }
};

// Gates r, z, n as in torch.nn: h' = n + z (h - n), n = tanh(x_n + r (h W_n + b_n))
template <class T>
struct Gru {
  static constexpr int GATES = 3, PANEL = 3, UNITS = 1, SAVED = 4, GRADS = 4, RECURRENT = 1;
  static constexpr bool CELL_STATE = false, HIDDEN_BIAS = true;
  typedef Vec<T> V;

  static TT_INLINE V forward(idx, const V* sums, int, const T* x, V h, T*, T* saved) {
    constexpr int L = lanes<T>;
    const V r = sigmoid(sums[0]), z = sigmoid(sums[1]);
    const V n = tanh(load(x + 2 * L) + r * sums[2]);
    if (saved) {
      store(saved, r);
      store(saved + L, z);
      store(saved + 2 * L, n);
      store(saved + 3 * L, sums[2]);
    }
    return n + z * (h - n);
  }
  static TT_INLINE void backward(idx, V dh, V h, V, const T* saved, V, V&, V* grads, V& direct) {
    constexpr int L = lanes<T>;
    const V r = load(saved), z = load(saved + L), n = load(saved + 2 * L), s = load(saved + 3 * L);
    const V dn = dh * (1 - z) * (1 - n * n);
    grads[0] = dn;
    grads[1] = dn * s * r * (1 - r);
    grads[2] = dh * (h - n) * z * (1 - z);
    grads[3] = dn * r;
    direct = dh * z;
  }
};

// Gates i, f, g, o as in torch.nn: c' = f c + i g, h' = o tanh(c')
template <class T>
struct Lstm {
  static constexpr int GATES = 4, PANEL = 4, UNITS = 1, SAVED = 5, GRADS = 4, RECURRENT = 0;
  static constexpr bool CELL_STATE = true, HIDDEN_BIAS = false;
  typedef Vec<T> V;

  static TT_INLINE V forward(idx, const V* sums, int, const T*, V, T* cell, T* saved) {
    constexpr int L = lanes<T>;
    const V i = sigmoid(sums[0]), f = sigmoid(sums[1]), g = tanh(sums[2]), o = sigmoid(sums[3]);
    const V c = f * load(cell) + i * g;
    store(cell, c);
    if (saved) {
      store(saved, i);
      store(saved + L, f);
      store(saved + 2 * L, g);
      store(saved + 3 * L, o);
      store(saved + 4 * L, c);
    }
    return o * tanh(c);
  }
  static TT_INLINE void backward(idx, V dh, V, V, const T* saved, V before, V& dc, V* grads,
                                 V& direct) {
    constexpr int L = lanes<T>;
    const V i = load(saved), f = load(saved + L), g = load(saved + 2 * L);
    const V o = load(saved + 3 * L), t = tanh(load(saved + 4 * L));
    const V d = dc + dh * o * (1 - t * t);
    grads[0] = d * g * i * (1 - i);
    grads[1] = d * before * f * (1 - f);
    grads[2] = d * i * (1 - g * g);
    grads[3] = dh * t * o * (1 - o);
    dc = d * f;
    direct = V{};
  }
};

// Gates z, n: h' = n + z (h - n), n = relu(x_n + h W_n)
template <class T>
struct LiGru {
  static constexpr int GATES = 2, PANEL = 2, UNITS = 1, SAVED = 2, GRADS = 2, RECURRENT = 0;
  static constexpr bool CELL_STATE = false, HIDDEN_BIAS = false;
  typedef Vec<T> V;

  static TT_INLINE V forward(idx, const V* sums, int, const T*, V h, T*, T* saved) {
    const V z = sigmoid(sums[0]), n = relu(sums[1]);
    if (saved) {
      store(saved, z);
      store(saved + lanes<T>, n);
    }
    return n + z * (h - n);
  }
  static TT_INLINE void backward(idx, V dh, V h, V, const T* saved, V, V&, V* grads, V& direct) {
    const V zero = {}, z = load(saved), n = load(saved + lanes<T>), dn = dh * (1 - z);
    grads[0] = dh * (h - n) * z * (1 - z);
    grads[1] = n <= zero ? zero : dn;  // NaN lets it pass, as in torch
    direct = dh * z;
  }
};

// The table: calls use with the cell of a kind of throughtime.h. NV: vectors of the RNN's panels.
template <class T, int NV = 1, class Use>
TT_INLINE auto with_cell(idx kind, const Use& use) {
  switch (kind) {
    case TT_GRU: return use(Gru<T>());
    case TT_LSTM: return use(Lstm<T>());
    case TT_LI_GRU: return use(LiGru<T>());
    default: return use(Rnn<T, NV>());
  }
}

inline idx gates_of(idx kind) {
  return with_cell<float>(kind, [](auto cell) { return idx(decltype(cell)::GATES); });
}

}  // namespace
}  // namespace TT_ISA
