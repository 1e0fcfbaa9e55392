// A layer over a whole batch, forward and backward.
//
// Each thread owns a slice of the batch for all time steps, so threads meet only after packing the
// weights and before summing their gradients. Time is cut into chunks of about CHUNK rows: the
// input products of a chunk are one product, and so are its gradients of the weights.
#pragma once

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
const T* row_of(const void* base, idx row, idx width) {
  return base ? static_cast<const T*>(base) + row * width : nullptr;
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
      work[t] = arena.take<T>(chunk * (width() + I + 1) + rows * Hp * 3);
    }
  }

  // The row of a weight matrix behind one column of a panel: a gate of a unit, or none.
  idx weight_row(idx column) const {
    const idx panel = column / (NV * L), vector = column / L % NV, lane = column % L;
    const idx unit = C::UNITS == 1 ? panel * L + lane : panel * NV * L + vector * L + lane;
    return unit < H ? (C::UNITS == 1 ? vector * H : 0) + unit : -1;
  }

  void prepare(int part) {
    const Range r = share(panels, part, this->threads);
    const T *ih = static_cast<const T*>(s.w_ih), *hh = static_cast<const T*>(s.w_hh);
    pack<T>(w_ih, I, width(), NV, r.begin, r.end, [&](idx k, idx n) {
      const idx row = weight_row(n);
      return row < 0 ? T(0) : ih[row * I + k];
    });
    pack<T>(w_hh, H, width(), NV, r.begin, r.end, [&](idx k, idx n) {
      const idx row = weight_row(n);
      return row < 0 ? T(0) : hh[row * H + k];
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
        cover<NV>(body, rows, panels);
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

  void prepare(int part) {
    auto matrix = [&](const void* w, idx columns, bool input) {
      const T* from = static_cast<const T*>(w);
      return [=, this](idx k, idx n) {
        const idx unit = k % Hp;
        return unit < H ? from[(gate(int(k / Hp), input) * H + unit) * columns + n] : T(0);
      };
    };
    pack_plain<T>(w_hh, K(), H, part, this->threads, matrix(s.w_hh, H, false));
    if (s.dx) pack_plain<T>(w_ih, K(), I, part, this->threads, matrix(s.w_ih, I, true));
  }

  // What a row's state was before a step: h, and c for the LSTM.
  const T* before(const void* start, const void* restart, const T* previous, idx step, idx row,
                  bool& zero) const {
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
    return previous;
  }

  void run(int part) {
    const Range r = share(B, part, this->threads);
    const idx rows = r.end - r.begin, per = this->steps(rows), chunk = rows * per;
    T* acc = sums[part];
    memset(acc, 0, size_t(sums_size()) * sizeof(T));
    if (rows == 0) return;
    T* grads = work[part];
    T* hidden = grads + chunk * row_size();
    T* x = hidden + chunk * (Hp + PAD);
    T* dx = x + chunk * (Ip + PAD);
    T* dh = dx + chunk * (Ip + PAD);
    T* dc = dh + rows * Hp;
    T* blank = dc + rows * Hp;  // only its first Hp are used
    memset(blank, 0, size_t(Hp) * sizeof(T));
    for (idx b = 0; b < rows; b++) {
      copy(dh + b * Hp, row_of<T>(s.dh_end, r.begin + b, H), H, Hp);
      if (C::CELL_STATE) copy(dc + b * Hp, row_of<T>(s.dc_end, r.begin + b, H), H, Hp);
    }
    if (s.dh_restart) memset(static_cast<T*>(s.dh_restart) + r.begin * H, 0, size_t(rows * H) * sizeof(T));
    if (s.dc_restart) memset(static_cast<T*>(s.dc_restart) + r.begin * H, 0, size_t(rows * H) * sizeof(T));
    for (idx end = T_; end > 0;) {
      const idx begin = end > per ? end - per : 0, count = (end - begin) * rows;
      gather(begin, end, r, x);
      for (idx step = end - 1; step >= begin; step--) {
        const idx at = (step - begin) * rows;
        slopes(step, r, grads + at * row_size(), hidden + at * (Hp + PAD), dh, dc, blank);
        product<T, W>(grads + at * row_size() + C::RECURRENT * Hp, row_size(), rows, w_hh, K(), H,
                      dh, Hp, true);
        restart(step, r, dh, dc);
      }
      T *d_hh = acc, *d_ih = acc + K() * Hp, *d_b = d_ih + K() * Ip;
      outer(grads + C::RECURRENT * Hp, row_size(), K(), hidden, Hp + PAD, Hp, count, d_hh, Hp);
      outer(grads, row_size(), K(), x, Ip + PAD, I, count, d_ih, Ip);
      add_rows(grads, count, d_b);
      if (s.dx) {
        product<T, W>(grads, row_size(), count, w_ih, K(), I, dx, Ip + PAD, false);
        for (idx step = begin; step < end; step++) {
          T* out = static_cast<T*>(s.dx) + (this->time(step) * B + r.begin) * I;
          for (idx b = 0; b < rows; b++) {
            memcpy(out + b * I, dx + ((step - begin) * rows + b) * (Ip + PAD), size_t(I) * sizeof(T));
          }
        }
      }
      end = begin;
    }
    for (idx b = 0; b < rows; b++) {
      memcpy(static_cast<T*>(s.dh0) + (r.begin + b) * H, dh + b * Hp, size_t(H) * sizeof(T));
      if (C::CELL_STATE) {
        memcpy(static_cast<T*>(s.dc0) + (r.begin + b) * H, dc + b * Hp, size_t(H) * sizeof(T));
      }
    }
  }

  void gather(idx begin, idx end, Range r, T* x) const {
    for (idx step = begin; step < end; step++) {
      const T* from = static_cast<const T*>(s.x) + this->time(step) * s.x_t;
      for (idx row = r.begin; row < r.end; row++, x += Ip + PAD) copy(x, from + row * s.x_b, I, Ip);
    }
  }

  // The gradients of one step's pre-activations, and dh (dc) without what the recurrence adds.
  void slopes(idx step, Range r, T* grads, T* hidden, T* dh, T* dc, const T* blank) const {
    const idx t = this->time(step), earlier = s.reverse ? t + 1 : t - 1;
    const T* y = static_cast<const T*>(s.y);
    for (idx row = r.begin; row < r.end; row++, grads += row_size(), hidden += Hp + PAD, dh += Hp, dc += Hp) {
      if (this->frozen(step, row)) {
        memset(grads, 0, size_t(D * Hp) * sizeof(T));
        memset(hidden, 0, size_t(Hp) * sizeof(T));
        continue;
      }
      bool zero;
      const T* h = before(s.h0, s.h_restart, y + (earlier * B + row) * H, step, row, zero);
      copy(hidden, zero ? nullptr : h, H, Hp);
      const T* dy = s.dy ? static_cast<const T*>(s.dy) + t * s.dy_t + row * s.dy_b : nullptr;
      const T* saved = static_cast<const T*>(s.reserve) + (t * B + row) * Hp * C::SAVED;
      const T* cell = blank;
      idx cell_stride = L;
      if (C::CELL_STATE) cell = cell_before(step, earlier, row, blank, cell_stride);
      for (idx unit = 0; unit < Hp; unit += L) {
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
        for (int d = 0; d < D; d++) store(grads + d * Hp + unit, change[d]);
        store(dh + unit, direct);
        if (C::CELL_STATE) store(dc + unit, memory);
      }
      if (H % L == 0) continue;
      // An infinite input makes NaN of lanes that are no units; no product may see them.
      const idx begin = H / L * L;
      for (int d = 0; d <= D + 1; d++) {
        T* at = (d < D ? grads + d * Hp : d == D ? dh : dc) + begin;
        if (d <= D || C::CELL_STATE) store(at, load(at, H - begin));
      }
    }
  }

  // Where c before a step is: in the reserve of the step before, interleaved with the gates.
  const T* cell_before(idx step, idx earlier, idx row, const T* blank, idx& stride) const {
    bool zero;
    const T* kept = static_cast<const T*>(s.reserve) + (earlier * B + row) * Hp * C::SAVED +
                    (C::SAVED - 1) * L;
    const T* c = before(s.c0, s.c_restart, kept, step, row, zero);
    if (zero || !c) return blank;
    if (c == kept) stride = C::SAVED * L;
    return c;
  }

  void restart(idx step, Range r, T* dh, T* dc) const {
    if (!s.reset) return;
    for (idx row = r.begin; row < r.end; row++, dh += Hp, dc += Hp) {
      if (!this->fresh(step, row)) continue;
      hand_over(s.dh_restart, row, dh);
      if (C::CELL_STATE) hand_over(s.dc_restart, row, dc);
    }
  }

  void hand_over(void* total, idx row, T* gradient) const {
    if (total) {
      T* out = static_cast<T*>(total) + row * H;
      for (idx i = 0; i < H; i++) out[i] += gradient[i];
    }
    memset(gradient, 0, size_t(Hp) * sizeof(T));
  }

  void add_rows(const T* grads, idx count, T* out) const {
    for (idx n = 0; n < D * Hp; n += L) {
      Vec<T> sum = {};
      for (idx row = 0; row < count; row++) sum += load(grads + row * row_size() + n);
      store(out + n, load(out + n) + sum);
    }
  }

  // The gradients of the weights: what the threads found, added up.
  void reduce(int part) {
    const Range r = share(H, part, this->threads);
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

// ----------------------------------------------------------------------------------------- running

template <class Job>
void prepare_part(void* job, int part) { static_cast<Job*>(job)->prepare(part); }
template <class Job>
void run_part(void* job, int part) { static_cast<Job*>(job)->run(part); }
template <class Job>
void reduce_part(void* job, int part) { static_cast<Job*>(job)->reduce(part); }

template <class Job>
bool carve(Job& job) {
  Arena measure;
  job.carve(measure);
  Arena arena;
  if (!arena.open(measure.used)) return false;
  job.carve(arena);
  return true;
}

template <class T, class W, class C>
int forward_of(const tt_sequence& s) {
  Forward<T, W, C> job(s);
  if (!carve(job)) return 1;
  tt_parallel(job.threads, prepare_part<decltype(job)>, &job);
  tt_parallel(job.threads, run_part<decltype(job)>, &job);
  return 0;
}

template <class T, class W, class C>
int backward_of(const tt_sequence& s) {
  Backward<T, W, C> job(s);
  if (!carve(job)) return 1;
  tt_parallel(job.threads, prepare_part<decltype(job)>, &job);
  tt_parallel(job.threads, run_part<decltype(job)>, &job);
  tt_parallel(job.threads, reduce_part<decltype(job)>, &job);
  return 0;
}

template <class T, class W, class C>
int either(const tt_sequence& s, bool backward) {
  return backward ? backward_of<T, W, C>(s) : forward_of<T, W, C>(s);
}

// The RNN's panels are as wide as wastes little: a layer of 20 units does not compute 64.
template <class T, class W>
int cell(const tt_sequence& s, bool backward) {
  if (s.kind == TT_GRU) return either<T, W, Gru<T>>(s, backward);
  if (s.kind == TT_LSTM) return either<T, W, Lstm<T>>(s, backward);
  const bool wide = up(s.H, 4 * lanes<T>) * 8 <= up(s.H, lanes<T>) * 9;
  return wide ? either<T, W, Rnn<T, 4>>(s, backward) : either<T, W, Rnn<T, 1>>(s, backward);
}

int sequence(const tt_sequence* s, bool backward) {
  if (s->type == TT_DOUBLE) return cell<double, double>(*s, backward);
  return s->low ? cell<float, bf16>(*s, backward) : cell<float, float>(*s, backward);
}

}  // namespace
}  // namespace TT_ISA
