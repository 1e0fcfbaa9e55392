// A linear head and the nats of symbols in one pass: no array of logits for all steps.
//
// For each few rows: logits, their softmax, the loss, and at once its gradients. Rows are shared out
// among threads; the gradients of the weights are added up at the end.
#pragma once

#include "gemm.h"
#include "internal.h"

namespace TT_ISA {
namespace {

TT_INLINE Simd<float>::V exponential(Simd<float>::V x) {
  const Simd<float>::V low = Simd<float>::V{} - 87.0f;
  x = x < low ? low : x;  // NaN passes
  const Power e = power(x);
  return e.scale + e.scale * e.minus_one;
}

TT_INLINE Simd<double>::V exponential(Simd<double>::V x) {
  for (int i = 0; i < lanes<double>; i++) x[i] = std::exp(x[i]);
  return x;
}

template <class T>
struct Head {
  static constexpr idx L = lanes<T>, ROWS_AT_ONCE = 64;
  const tt_head& s;
  const idx N, H, V, Hp, Vp;
  int threads;
  T *down, *up_;  // weights packed for logits, and for the gradient of y
  T *rows[TT_MAX_THREADS], *sums[TT_MAX_THREADS];
  double* totals;

  explicit Head(const tt_head& args)
      : s(args), N(s.N), H(s.H), V(s.V), Hp(up(s.H, L)), Vp(up(s.V, L) + 2 * L) {
    const idx most = (N + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE;
    threads = int(s.threads < most ? s.threads : most);
    if (threads < 1) threads = 1;
    if (threads > TT_MAX_THREADS) threads = TT_MAX_THREADS;
  }

  void carve(Arena& arena) {
    down = arena.take<T>(H * up(V, L));
    up_ = s.dw ? arena.take<T>(V * up(H, L)) : nullptr;
    totals = arena.take<double>(threads);
    for (int t = 0; t < threads; t++) {
      rows[t] = arena.take<T>(ROWS_AT_ONCE * (2 * Hp + Vp));
      sums[t] = s.dw ? arena.take<T>(V * Hp + V) : nullptr;
    }
  }

  void prepare(int part) {
    const T* w = static_cast<const T*>(s.w);
    pack_plain<T>(down, H, V, part, threads, [&](idx k) {
      return [&, k](idx n) { return w[n * H + k]; };
    });
    if (s.dw) pack_rows<T>(up_, V, H, part, threads, [&](idx k) { return w + k * H; });
  }

  void run(int part) {
    const idx first = N * part / threads, last = N * (part + 1) / threads;
    T *y = rows[part], *dy = y + ROWS_AT_ONCE * Hp, *logits = dy + ROWS_AT_ONCE * Hp;
    T *dw = sums[part], *db = dw ? dw + V * Hp : nullptr;
    if (s.dw) memset(dw, 0, size_t(V * Hp + V) * sizeof(T));
    double total = 0;
    for (idx begin = first; begin < last; begin += ROWS_AT_ONCE) {
      const idx count = last - begin < ROWS_AT_ONCE ? last - begin : ROWS_AT_ONCE;
      for (idx i = 0; i < count; i++) {
        memcpy(y + i * Hp, static_cast<const T*>(s.y) + (begin + i) * s.y_n, size_t(H) * sizeof(T));
        memset(y + i * Hp + H, 0, size_t(Hp - H) * sizeof(T));
      }
      product<T, T>(y, Hp, count, down, H, V, logits, Vp, false);
      for (idx i = 0; i < count; i++) total += row(logits + i * Vp, begin + i, db);
      if (!s.dw) continue;
      outer(logits, Vp, V, y, Hp, H, count, dw, Hp);
      product<T, T>(logits, Vp, count, up_, V, H, dy, Hp, false);
      for (idx i = 0; i < count; i++) {
        memcpy(static_cast<T*>(s.dy) + (begin + i) * s.y_n, dy + i * Hp, size_t(H) * sizeof(T));
      }
    }
    totals[part] = total;
  }

  // The weighted nats of a row; its logits become their gradients.
  double row(T* logits, idx n, T* db) const {
    const T weight = static_cast<const T*>(s.weight)[n];
    const T* b = static_cast<const T*>(s.b);
    T most = -INFINITY;
    for (idx v = 0; v < V; v++) {
      logits[v] += b[v];
      most = logits[v] > most ? logits[v] : most;
    }
    const T chosen = logits[s.target[n]];
    for (idx v = V; v < up(V, L); v++) logits[v] = -INFINITY;
    Vec<T> sum = {};
    for (idx v = 0; v < V; v += L) {
      const Vec<T> e = exponential(load(logits + v) - most);
      store(logits + v, e);
      sum += e;
    }
    T mass = 0;
    for (idx i = 0; i < L; i++) mass += sum[i];
    const double nats = std::log(double(mass)) + double(most) - double(chosen);
    if (s.dw) {
      const T scale = weight / mass;
      for (idx v = 0; v < V; v += L) store(logits + v, load(logits + v) * scale);
      logits[s.target[n]] -= weight;
      for (idx v = 0; v < V; v++) db[v] += logits[v];
    }
    return weight == 0 ? 0.0 : double(weight) * nats;
  }

  void reduce(int part) {
    const idx first = V * part / threads, last = V * (part + 1) / threads;
    for (idx v = first; v < last; v++) {
      T* line = static_cast<T*>(s.dw) + v * H;
      for (idx h = 0; h < H; h++) {
        T sum = 0;
        for (int t = 0; t < threads; t++) sum += sums[t][v * Hp + h];
        line[h] = sum;
      }
      T sum = 0;
      for (int t = 0; t < threads; t++) sum += sums[t][V * Hp + v];
      static_cast<T*>(s.db)[v] = sum;
    }
  }
};

template <class T>
int head_of(const tt_head& s) {
  for (idx n = 0; n < s.N; n++) {
    if (s.target[n] < 0 || s.target[n] >= s.V) return 2;
  }
  Head<T> job(s);
  if (!carve(job)) return 1;
  tt_parallel(job.threads, prepare_part<Head<T>>, &job);
  tt_parallel(job.threads, run_part<Head<T>>, &job);
  if (s.dw) tt_parallel(job.threads, reduce_part<Head<T>>, &job);
  *s.total = 0;
  for (int t = 0; t < job.threads; t++) *s.total += job.totals[t];
  return 0;
}

int head(const tt_head* s) {
  return s->type == TT_DOUBLE ? head_of<double>(*s) : head_of<float>(*s);
}

}  // namespace
}  // namespace TT_ISA
