// A layer over a whole batch, forward and backward.
//
// Each thread owns a slice of the batch for all time steps, so threads meet only after packing the
// weights and before summing their gradients. Time is cut into chunks of about CHUNK rows: the
// input products of a chunk are one product, and so are its gradients of the weights.
#pragma once

#include <initializer_list>

#include "cells.h"
#include "internal.h"

namespace TT_ISA {
namespace {

constexpr idx CHUNK = 128;
constexpr idx PAD = 16;  // keeps rows off power-of-two strides, which would share cache sets

struct Range {
  idx begin, end;
};

TT_INLINE Range share(idx n, idx part, idx parts) { return {n * part / parts, n * (part + 1) / parts}; }

// Sizes that follow from the arguments.
template <class T, class C>
struct Shape {
  static constexpr int L = lanes<T>;
  const tt_sequence& s;
  idx T_, B, I, H, G, Hp, Ip, panels;
  int threads;

  explicit Shape(const tt_sequence& args)
      : s(args), T_(args.T), B(args.B), I(args.I), H(args.H), G(C::GATES) {
    panels = (H + C::UNITS * L - 1) / (C::UNITS * L);
    Hp = panels * C::UNITS * L;
    Ip = up(I, L);
    const idx work = T_ * B * G * H * (I + H);
    threads = int(work < 100000 ? 1 : s.threads < B ? s.threads : B);
    if (threads > TT_MAX_THREADS) threads = TT_MAX_THREADS;
    if (threads < 1) threads = 1;
  }
  idx steps(idx rows) const {
    const idx n = CHUNK / (rows > 0 ? rows : 1);
    return n < 1 ? 1 : (n < T_ ? n : (T_ > 0 ? T_ : 1));
  }
  idx time(idx step) const { return s.reverse ? T_ - 1 - step : step; }
  // Whether a row starts afresh before a step (in the order of processing).
  bool fresh(idx step, idx row) const {
    if (!s.reset || (s.reverse && step == 0)) return false;
    const idx t = s.reverse ? T_ - step : step;
    return s.reset[t * B + row] != 0;
  }
  bool frozen(idx step, idx row) const { return s.lengths && time(step) >= s.lengths[row]; }
};

template <class T>
TT_INLINE void copy(T* out, const T* from, idx n, idx padded) {
  if (from) {
    memcpy(out, from, size_t(n) * sizeof(T));
  } else {
    memset(out, 0, size_t(n) * sizeof(T));
  }
  if (padded > n) memset(out + n, 0, size_t(padded - n) * sizeof(T));
}

template <class T>
const T* row_of(const void* base, idx row, idx width, idx first = 0) {
  return base ? static_cast<const T*>(base) + row * width + first : nullptr;
}

// ---------------------------------------------------------------------------------------- forward

template <class T, class W, class C>
struct Forward : Shape<T, C> {
  using Base = Shape<T, C>;
  using Base::B, Base::H, Base::Hp, Base::I, Base::L, Base::G, Base::panels, Base::s, Base::T_;
  static constexpr int NV = C::PANEL;
  W *w_ih, *w_hh;
  T *bias, *hidden_bias;
  T* work[TT_MAX_THREADS];

  explicit Forward(const tt_sequence& args) : Base(args) {}

  idx width() const { return panels * NV * L; }

  void carve(Arena& arena) {
    w_ih = arena.take<W>(panels * I * NV * L);
    w_hh = arena.take<W>(panels * H * NV * L);
    bias = arena.take<T>(width());
    hidden_bias = arena.take<T>(panels * L);
    for (int t = 0; t < this->threads; t++) {
      const Range r = share(B, t, this->threads);
      const idx rows = r.end - r.begin, chunk = rows * this->steps(rows);
      work[t] = arena.take<T>(chunk * width() + up(chunk * I, L) + rows * Hp * 3);
    }
  }

  // The row of a weight matrix behind one column of a panel: a gate of a unit, or none.
  idx weight_row(idx column) const {
    const idx panel = column / (NV * L), vector = column / L % NV, lane = column % L;
    const idx unit = C::UNITS == 1 ? panel * L + lane : panel * NV * L + vector * L + lane;
    return unit < H ? (C::UNITS == 1 ? vector * H : 0) + unit : -1;
  }

  void prepare(int part) { prepare(share(panels, part, this->threads)); }

  void prepare(Range r) {
    const T *ih = static_cast<const T*>(s.w_ih), *hh = static_cast<const T*>(s.w_hh);
    pack_columns<T>(w_ih, I, NV, r.begin, r.end, [&](idx n) {
      const idx row = weight_row(n);
      return row < 0 ? nullptr : ih + row * I;
    });
    pack_columns<T>(w_hh, H, NV, r.begin, r.end, [&](idx n) {
      const idx row = weight_row(n);
      return row < 0 ? nullptr : hh + row * H;
    });
    const T *bi = static_cast<const T*>(s.b_ih), *bh = static_cast<const T*>(s.b_hh);
    for (idx n = r.begin * NV * L; n < r.end * NV * L; n++) {
      const idx row = weight_row(n);
      const bool apart = C::HIDDEN_BIAS && n / L % NV == NV - 1;
      const T recurrent = row < 0 || !bh ? T(0) : bh[row];
      bias[n] = (row < 0 || !bi ? T(0) : bi[row]) + (apart ? T(0) : recurrent);
      if (apart) hidden_bias[n / (NV * L) * L + n % L] = recurrent;
    }
  }

  struct Step {
    const Forward& f;
    const T *x, *h;    // input products and state, a row each
    T *next, *cell;    // state after the step
    T *y, *saved;      // of the first row of the slice
    idx step, first;

    template <int R, int P>
    TT_INLINE void run(idx row, idx panel) {
      Tile<T, R, P, NV> acc;
      const idx width = f.width();
      TT_UNROLL for (int r = 0; r < R; r++) {
        TT_UNROLL for (int p = 0; p < P; p++) {
          TT_UNROLL for (int n = 0; n < NV; n++) {
            const T* from = x + (row + r) * width + ((panel + p) * NV + n) * L;
            if (C::HIDDEN_BIAS && n == NV - 1) from = f.hidden_bias + (panel + p) * L;
            acc.v[r][p][n] = load(from);
          }
        }
      }
      const idx ps = f.H * NV * L;
      multiply<T, W, R, P, NV>(acc, h + row * f.Hp, f.Hp, f.w_hh + panel * ps, ps, f.H);
      // Once in memory, so that the functions are compiled once, not for every sum of the tile.
      Vec<T> sums[R * P][NV];
      TT_UNROLL for (int r = 0; r < R; r++) {
        TT_UNROLL for (int p = 0; p < P; p++) {
          TT_UNROLL for (int n = 0; n < NV; n++) sums[r * P + p][n] = acc.v[r][p][n];
        }
      }
      asm volatile("" ::: "memory");
      _Pragma("GCC unroll 1") for (int i = 0; i < R * P; i++) finish(sums[i], row + i / P, panel + i % P);
    }

    __attribute__((noinline)) void finish(const Vec<T>* sums, idx row, idx panel) {
      const bool still = f.s.lengths && f.frozen(step, first + row);
      TT_UNROLL for (int n = 0; n < C::UNITS; n++) {
        const idx unit = (panel * C::UNITS + n) * L, left = f.H - unit;
        if (C::UNITS > 1 && left <= 0) {
          store(next + row * f.Hp + unit, Vec<T>{});
          continue;
        }
        const Vec<T> before = load(h + row * f.Hp + unit);
        Vec<T> after = before;
        if (!still) {
          after = C::forward(f.s.kind, sums, n, x + row * f.width() + panel * NV * L, before,
                             C::CELL_STATE ? cell + row * f.Hp + unit : nullptr,
                             saved ? saved + (row * f.Hp + unit) * C::SAVED : nullptr);
        }
        store(next + row * f.Hp + unit, after);
        store(y + row * f.H + unit, still ? Vec<T>{} : after, left);
      }
    }
  };

  void run(int part) {
    const Range r = share(B, part, this->threads);
    const idx rows = r.end - r.begin, per = this->steps(rows), chunk = rows * per;
    if (rows == 0) return;
    T* inputs = work[part];
    T* x = inputs + chunk * width();
    T* h = x + up(chunk * I, L);
    T* next = h + rows * Hp;
    T* cell = next + rows * Hp;
    for (idx b = 0; b < rows; b++) {
      copy(h + b * Hp, row_of<T>(s.h0, r.begin + b, H), H, Hp);
      if (C::CELL_STATE) copy(cell + b * Hp, row_of<T>(s.c0, r.begin + b, H), H, Hp);
    }
    for (idx begin = 0; begin < T_; begin += per) {
      const idx end = begin + per < T_ ? begin + per : T_;
      for (idx step = begin; step < end; step++) {
        const T* from = static_cast<const T*>(s.x) + this->time(step) * s.x_t + r.begin * s.x_b;
        for (idx b = 0; b < rows; b++) copy(x + ((step - begin) * rows + b) * I, from + b * s.x_b, I, I);
      }
      plain<T, W, NV>(x, I, (end - begin) * rows, w_ih, I, width(), inputs, width(), bias, false);
      for (idx step = begin; step < end; step++) {
        restart(step, r, h, cell);
        const idx place = this->time(step) * B + r.begin;
        T* saved = s.reserve ? static_cast<T*>(s.reserve) + place * Hp * C::SAVED : nullptr;
        T* y = static_cast<T*>(s.y) + place * H;
        Step body{*this, inputs + (step - begin) * rows * width(), h, next, cell, y, saved, step, r.begin};
        cover<NV>(body, rows, panels, step % 2);
        T* swap = h;
        h = next;
        next = swap;
      }
    }
    for (idx b = 0; b < rows; b++) {
      memcpy(static_cast<T*>(s.h_end) + (r.begin + b) * H, h + b * Hp, size_t(H) * sizeof(T));
      if (C::CELL_STATE) {
        memcpy(static_cast<T*>(s.c_end) + (r.begin + b) * H, cell + b * Hp, size_t(H) * sizeof(T));
      }
    }
  }

  void restart(idx step, Range r, T* h, T* cell) const {
    if (!s.reset) return;
    for (idx row = r.begin; row < r.end; row++) {
      if (!this->fresh(step, row)) continue;
      copy(h + (row - r.begin) * Hp, row_of<T>(s.h_restart, row, H), H, Hp);
      if (C::CELL_STATE) copy(cell + (row - r.begin) * Hp, row_of<T>(s.c_restart, row, H), H, Hp);
    }
  }
};

// --------------------------------------------------------------------------------------- backward

template <class T, class W, class C>
struct Backward : Shape<T, C> {
  using Base = Shape<T, C>;
  using Base::B, Base::H, Base::Hp, Base::I, Base::Ip, Base::L, Base::G, Base::s, Base::T_;
  static constexpr int D = C::GRADS;
  W *w_ih, *w_hh;
  T *work[TT_MAX_THREADS], *sums[TT_MAX_THREADS];

  explicit Backward(const tt_sequence& args) : Base(args) {}

  idx K() const { return G * Hp; }                // gradients of one side of a row
  idx row_size() const { return D * Hp + PAD; }   // of both
  idx sums_size() const { return K() * (Hp + Ip) + D * Hp; }

  // torch's gate behind the k-th block of gradients of one side.
  static int gate(int block, bool input) {
    return C::HIDDEN_BIAS && input ? (block + C::GATES - 1) % C::GATES : block;
  }

  void carve(Arena& arena) {
    w_ih = s.dx ? arena.take<W>(K() * up(I, L)) : nullptr;
    w_hh = arena.take<W>(K() * up(H, L));
    for (int t = 0; t < this->threads; t++) {
      const Range r = share(B, t, this->threads);
      const idx rows = r.end - r.begin, chunk = rows * this->steps(rows);
      work[t] = arena.take<T>(chunk * (row_size() + Hp + PAD + 2 * (Ip + PAD)) + rows * Hp * 3);
      sums[t] = arena.take<T>(sums_size());
    }
  }

  // A matrix of weights as the products of the backward pass read it, from a column on.
  auto matrix(const void* w, idx columns, bool input, idx first) const {
    const T* from = static_cast<const T*>(w) + first;
    return [=, this](idx k) {
      const idx unit = k % Hp;
      return unit < H ? from + (gate(int(k / Hp), input) * H + unit) * columns : nullptr;
    };
  }

  void prepare(int part) {
    pack_rows<T>(w_hh, K(), H, part, this->threads, matrix(s.w_hh, H, false, 0));
    if (s.dx) pack_rows<T>(w_ih, K(), I, part, this->threads, matrix(s.w_ih, I, true, 0));
  }

  // What a row's state was before a step: h, and c for the LSTM.
  const T* before(const void* start, const void* restart, const T* all, idx earlier, idx width,
                  idx step, idx row, bool& zero, bool* kept = nullptr) const {
    zero = false;
    if (this->fresh(step, row)) {
      zero = restart == nullptr;
      return row_of<T>(restart, row, H);
    }
    if (step == 0) return row_of<T>(start, row, H);
    if (s.reverse && this->frozen(step - 1, row)) {  // nothing has run yet, but it may be reset
      for (idx past = step - 1; s.reset && past > 0; past--) {
        if (!this->fresh(past, row)) continue;
        zero = restart == nullptr;
        return row_of<T>(restart, row, H);
      }
      return row_of<T>(start, row, H);
    }
    if (kept) *kept = true;
    return all + (earlier * B + row) * width;
  }

  // A thread's workspace: of each row of a chunk, and of each row of its slice.
  struct Buffers {
    T *grads, *hidden, *x, *dx;
    T *dh, *dc, *blank;
  };

  Buffers buffers(int part, idx chunk) const {
    const Range r = share(B, part, this->threads);
    const idx state = (r.end - r.begin) * Hp;
    Buffers at;
    at.grads = work[part];
    at.hidden = at.grads + chunk * row_size();
    at.x = at.hidden + chunk * (Hp + PAD);
    at.dx = at.x + chunk * (Ip + PAD);
    at.dh = at.dx + chunk * (Ip + PAD);
    at.dc = at.dh + state;
    at.blank = at.dc + state;  // only its first Hp are used
    return at;
  }

  // A single step of many rows has them worked off in chunks too, to stay in the cache.
  void run(int part) {
    const Range all = share(B, part, this->threads);
    memset(sums[part], 0, size_t(sums_size()) * sizeof(T));
    const idx most = T_ == 1 ? CHUNK : all.end - all.begin;
    for (idx first = all.begin; first < all.end; first += most) {
      run(part, {first, first + most < all.end ? first + most : all.end});
    }
  }

  void run(int part, Range r) {
    const idx rows = r.end - r.begin, per = this->steps(rows);
    const Buffers at = buffers(part, rows * per);
    memset(at.blank, 0, size_t(Hp) * sizeof(T));
    for (idx b = 0; b < rows; b++) start(r.begin + b, {0, H}, at.dh + b * Hp, at.dc + b * Hp);
    for (idx end = T_; end > 0;) {
      const idx begin = end > per ? end - per : 0;
      gather(begin, end, r, at.x);
      for (idx step = end - 1; step >= begin; step--) {
        const idx place = (step - begin) * rows;
        T* grads = at.grads + place * row_size();
        for (idx b = 0; b < rows; b++) {
          slope(step, r.begin + b, {0, Hp}, grads + b * row_size(),
                at.hidden + (place + b) * (Hp + PAD), at.dh + b * Hp, at.dc + b * Hp, at.blank);
        }
        if (B == 1) {  // not rows: sums must not depend on how many threads share the batch
          row_product<T, W>(grads + C::RECURRENT * Hp, w_hh, K(), H, at.dh, step % 2);
        } else {
          product<T, W>(grads + C::RECURRENT * Hp, row_size(), rows, w_hh, K(), H, at.dh, Hp, true);
        }
        for (idx b = 0; s.reset && b < rows; b++) {
          if (this->fresh(step, r.begin + b)) {
            restart_row(r.begin + b, {0, H}, at.dh + b * Hp, at.dc + b * Hp);
          }
        }
      }
      weights(at, (end - begin) * rows, {0, K()}, {0, D * Hp}, sums[part]);
      if (s.dx) inputs(at, begin, r, {0, end - begin});
      end = begin;
    }
    for (idx b = 0; b < rows; b++) finish(r.begin + b, {0, H}, at.dh + b * Hp, at.dc + b * Hp);
  }

  // Some units of a row's dh and dc after the last step, and zeros for what restarts will add.
  void start(idx row, Range units, T* dh, T* dc) const {
    const idx count = units.end - units.begin, first = units.begin;
    if (count <= 0) return;
    const idx padded = (units.end == H ? Hp : units.end) - first;
    copy(dh + first, row_of<T>(s.dh_end, row, H, first), count, padded);
    if (C::CELL_STATE) copy(dc + first, row_of<T>(s.dc_end, row, H, first), count, padded);
    for (void* total : {s.dh_restart, s.dc_restart}) {
      if (total) memset(static_cast<T*>(total) + row * H + first, 0, size_t(count) * sizeof(T));
    }
  }

  void finish(idx row, Range units, const T* dh, const T* dc) const {
    const idx count = units.end - units.begin, first = units.begin;
    if (count <= 0) return;
    memcpy(static_cast<T*>(s.dh0) + row * H + first, dh + first, size_t(count) * sizeof(T));
    if (!C::CELL_STATE) return;
    memcpy(static_cast<T*>(s.dc0) + row * H + first, dc + first, size_t(count) * sizeof(T));
  }

  // What a chunk adds to the gradients of the weights: rows k of the matrices, some of the biases.
  void weights(const Buffers& at, idx count, Range k, Range columns, T* acc) const {
    T *d_hh = acc, *d_ih = acc + K() * Hp, *d_b = d_ih + K() * Ip;
    const idx some = k.end - k.begin;
    outer(at.grads + C::RECURRENT * Hp + k.begin, row_size(), some, at.hidden, Hp + PAD, Hp, count,
          d_hh + k.begin * Hp, Hp);
    outer(at.grads + k.begin, row_size(), some, at.x, Ip + PAD, I, count, d_ih + k.begin * Ip, Ip);
    for (idx n = columns.begin; n < columns.end; n += L) {
      Vec<T> sum = {};  // of the chunk by itself: a running total of all steps would round more
      for (idx row = 0; row < count; row++) sum += load(at.grads + row * row_size() + n);
      store(d_b + n, load(d_b + n) + sum);
    }
  }

  // The gradients of the input at some steps of a chunk.
  void inputs(const Buffers& at, idx begin, Range r, Range steps) const {
    const idx rows = r.end - r.begin, first = steps.begin * rows;
    product<T, W>(at.grads + first * row_size(), row_size(), (steps.end - steps.begin) * rows, w_ih,
                  K(), I, at.dx + first * (Ip + PAD), Ip + PAD, false);
    for (idx step = steps.begin; step < steps.end; step++) {
      T* out = static_cast<T*>(s.dx) + (this->time(begin + step) * B + r.begin) * I;
      const T* from = at.dx + step * rows * (Ip + PAD);
      for (idx b = 0; b < rows; b++) {
        memcpy(out + b * I, from + b * (Ip + PAD), size_t(I) * sizeof(T));
      }
    }
  }

  void gather(idx begin, idx end, Range r, T* x) const {
    for (idx step = begin; step < end; step++) {
      const T* from = static_cast<const T*>(s.x) + this->time(step) * s.x_t;
      for (idx row = r.begin; row < r.end; row++, x += Ip + PAD) copy(x, from + row * s.x_b, I, Ip);
    }
  }

  // The gradients of some units' pre-activations at a step, and their dh (dc) without what the
  // recurrence adds.
  void slope(idx step, idx row, Range units, T* grads, T* hidden, T* dh, T* dc, const T* blank) const {
    const idx t = this->time(step), earlier = s.reverse ? t + 1 : t - 1;
    const T* y = static_cast<const T*>(s.y);
    if (this->frozen(step, row)) {
      for (idx unit = units.begin; unit < units.end; unit += L) {
        for (int d = 0; d < D; d++) store(grads + d * Hp + unit, Vec<T>{});
        store(hidden + unit, Vec<T>{});
      }
      return;
    }
    bool zero;
    const T* h = before(s.h0, s.h_restart, y, earlier, H, step, row, zero);
    const idx last = units.end < H ? units.end : H;
    copy(hidden + units.begin, zero || !h ? nullptr : h + units.begin, last - units.begin,
         units.end - units.begin);
    const T* dy = s.dy ? static_cast<const T*>(s.dy) + t * s.dy_t + row * s.dy_b : nullptr;
    const T* saved = static_cast<const T*>(s.reserve) + (t * B + row) * Hp * C::SAVED;
    const T* cell = blank;
    idx cell_stride = L;
    if (C::CELL_STATE) cell = cell_before(step, earlier, row, blank, cell_stride);
    for (idx unit = units.begin; unit < units.end; unit += L) {
      const idx left = H - unit;
      if (left <= 0) {
        for (int d = 0; d < D; d++) store(grads + d * Hp + unit, Vec<T>{});
        store(dh + unit, Vec<T>{});
        continue;
      }
      Vec<T> total = load(dh + unit), change[D], direct;
      if (dy) total += load(dy + unit, left);
      Vec<T> memory = C::CELL_STATE ? load(dc + unit) : Vec<T>{};
      const Vec<T> previous = C::CELL_STATE ? load(cell + unit / L * cell_stride, left) : Vec<T>{};
      const Vec<T> after = C::SAVED ? Vec<T>{} : load(y + (t * B + row) * H + unit, left);
      C::backward(s.kind, total, load(hidden + unit), after, saved + unit * C::SAVED, previous, memory,
                  change, direct);
      if (left < L) {  // an infinite input makes NaN of lanes that are no units
        for (int d = 0; d < D; d++) change[d] = only(change[d], left);
        direct = only(direct, left);
        memory = only(memory, left);
      }
      for (int d = 0; d < D; d++) store(grads + d * Hp + unit, change[d]);
      store(dh + unit, direct);
      if (C::CELL_STATE) store(dc + unit, memory);
    }
  }

  // The first lanes, and zeros.
  static Vec<T> only(Vec<T> v, idx count) {
    T line[L];
    store(line, v);
    return load(line, count);
  }

  // Where c before a step is: in the reserve of the step before, interleaved with the gates.
  const T* cell_before(idx step, idx earlier, idx row, const T* blank, idx& stride) const {
    bool zero, kept = false;
    const T* reserve = static_cast<const T*>(s.reserve) + (C::SAVED - 1) * L;
    const T* c = before(s.c0, s.c_restart, reserve, earlier, Hp * C::SAVED, step, row, zero, &kept);
    if (zero || !c) return blank;
    if (kept) stride = C::SAVED * L;
    return c;
  }

  // What reaches a state that a restart took away goes to what was put in its place.
  void restart_row(idx row, Range units, T* dh, T* dc) const {
    hand_over(s.dh_restart, row, units, dh);
    if (C::CELL_STATE) hand_over(s.dc_restart, row, units, dc);
  }

  void hand_over(void* total, idx row, Range units, T* gradient) const {
    for (idx i = units.begin; i < units.end; i++) {
      if (total) static_cast<T*>(total)[row * H + i] += gradient[i];
      gradient[i] = 0;
    }
  }

  // The gradients of the weights: what the threads found, added up.
  void reduce(int part) { reduce(share(H, part, this->threads)); }

  void reduce(Range r) {
    for (int block = 0; block < C::GATES; block++) {
      for (idx unit = r.begin; unit < r.end; unit++) {
        const idx k = block * Hp + unit;
        add(s.dw_hh, gate(block, false) * H + unit, H, k * Hp);
        add(s.dw_ih, gate(block, true) * H + unit, I, K() * Hp + k * Ip);
        const idx biases = K() * (Hp + Ip);
        if (s.db_hh) add(s.db_hh, gate(block, false) * H + unit, 1, biases + C::RECURRENT * Hp + k);
        if (s.db_ih) add(s.db_ih, gate(block, true) * H + unit, 1, biases + k);
      }
    }
  }

  void add(void* out, idx row, idx columns, idx place) const {
    T* line = static_cast<T*>(out) + row * columns;
    for (idx n = 0; n < columns; n++) {
      T sum = 0;
      for (int t = 0; t < this->threads; t++) sum += sums[t][place + n];
      line[n] = sum;
    }
  }
};

}  // namespace
}  // namespace TT_ISA
