// The weights of a model as sampling reads them, packed once for many steps.
//
// A layer puts [start | products] together: its sums begin at a row of biases (for symbols: a row
// of a table, one for each symbol, into which the product with its code has gone already), to which
// the products with the other inputs and with the state are added. Each gate is a column of sums as
// wide as the units; the GRU's candidate has two, one before the reset gate and one after.
#pragma once

#include "run.h"
#include "step.h"

namespace TT_ISA {
namespace {

// out[n] += sum over k of a[k] * B(k, n): one row and NV vectors of columns.
template <class T, int NV>
__attribute__((noinline)) void row_tile(const T* a, const T* b, idx K, T* out) {
  constexpr int L = lanes<T>;
  Vec<T> acc[NV] = {};
  for (idx k = 0; k < K; k++) {
    const T value = a[k];
    TT_UNROLL for (int n = 0; n < NV; n++) acc[n] += value * load(b + (k * NV + n) * L);
  }
  TT_UNROLL for (int n = 0; n < NV; n++) store(out + n * L, load(out + n * L) + acc[n]);
}

template <class T, int NV>
void row_tiles(int nv, const T* a, const T* b, idx K, T* out) {
  if (nv == NV) return row_tile<T, NV>(a, b, K, out);
  if constexpr (NV > 1) row_tiles<T, NV - 1>(nv, a, b, K, out);
}

// A matrix [K, N] to multiply rows with. For `one` row its tiles are as wide as the registers allow;
// the sums are formed in the same order either way.
template <class T>
struct Matrix {
  static constexpr idx L = lanes<T>;
  static constexpr int WIDEST = 12;
  static constexpr idx BLOCK = 64;  // rows packed at a time, so that what is written stays in cache
  T* data;
  idx K, N;
  bool one;

  idx size() const { return K * up(N, L); }
  idx tiles() const { return (N + WIDEST * L - 1) / (WIDEST * L); }

  // column(n): where the K weights of a column are, one after the other; null for zeros.
  template <class Column>
  void pack(const Column& column) const {
    const idx vectors = up(N, L) / L;
    const idx count = one ? tiles() : (vectors + WIDE<T> - 1) / WIDE<T>;
    for (idx tile = 0; tile < count; tile++) {
      const idx first = one ? share(vectors, tile, count).begin : tile * WIDE<T>;
      const idx last = one ? share(vectors, tile, count).end : std::min(first + WIDE<T>, vectors);
      const idx width = (last - first) * L;
      for (idx k = 0; k < K; k += BLOCK) {
        T* out = data + first * L * K + k * width;
        for (idx n = 0; n < width; n++) {
          const T* from = first * L + n < N ? column(first * L + n) : nullptr;
          transpose(from ? from + k : nullptr, std::min(K - k, BLOCK), out + n, width);
        }
      }
    }
  }
  static void transpose(const T* from, idx count, T* out, idx apart) {
    for (idx k = 0; k < count; k++) out[k * apart] = from ? from[k] : T(0);
  }
  // out += a B; rows of out are padded to whole vectors
  void add(const T* a, idx a_stride, idx rows, T* out, idx out_stride) const {
    if (K == 0) return;
    if (!one) return product<T, T>(a, a_stride, rows, data, K, N, out, out_stride, true);
    for (idx tile = 0; tile < tiles(); tile++) {
      const Range r = share(up(N, L) / L, tile, tiles());
      row_tiles<T, WIDEST>(int(r.end - r.begin), a, data + r.begin * L * K, K, out + r.begin * L);
    }
  }
};

// Some units of a layer (or some columns of the head, which has no state).
template <class T>
struct Slice {
  Range units;
  idx width, columns;  // units padded to whole vectors, and columns of sums
  Matrix<T> inputs, states, codes;
  T* start;  // [symbols + 1 or 1, columns]
};

constexpr idx MOST_CODES = 1024;  // symbols of a table

template <class T, class C>
struct Packed {
  static constexpr idx L = lanes<T>;
  static constexpr idx SUMS = C::GATES + (C::HIDDEN_BIAS ? 1 : 0);
  const tt_sampler& s;
  const idx H, P, I, layers, members;
  bool tabled;
  int parts;  // one row's units are shared out among so many threads
  Slice<T>*slices, *heads;

  explicit Packed(const tt_sampler& args)
      : s(args), H(s.H), P(s.parameters), I(s.coded + s.covariates + s.identity), layers(s.layers),
        members(s.members) {
    tabled = s.symbols > 0 && s.symbols < MOST_CODES;
    parts = 1;
    if (s.paths == 1) {
      const idx worth = work() / SHARED_WEIGHTS + 1, most = up(H, L) / L;
      parts = int(std::min(std::min(worth, s.threads), std::min(most, idx(TT_MAX_THREADS))));
    }
    if (parts < 1) parts = 1;
  }
  // Products of a step of one path.
  idx work() const {
    return members * (C::GATES * H * (H + (tabled ? I - s.coded : I) + (layers - 1) * 2 * H) + H * P);
  }
  // Inputs of the first layer that are not in its table.
  idx open_inputs() const { return tabled ? I - s.coded : I; }

  Slice<T>& slice(idx member, idx layer, idx part) const {
    return slices[(member * layers + layer) * parts + part];
  }
  Slice<T>& head(idx member, idx part) const { return heads[member * parts + part]; }

  void carve(Arena& arena) {
    slices = arena.take<Slice<T>>(members * layers * parts);
    heads = arena.take<Slice<T>>(members * parts);
    const bool one = s.paths == 1;
    for (idx i = 0; i < members * layers * parts; i++) {
      const bool first = i / parts % layers == 0;
      Slice<T> cut = of(H, i % parts);
      cut.columns = SUMS * cut.width;
      const idx N = C::GATES * cut.width;
      cut.inputs = {nullptr, first ? open_inputs() : H, N, one};
      cut.states = {nullptr, H, N, one};
      cut.codes = {nullptr, first && tabled ? s.coded : 0, N, false};
      place(arena, cut, first && tabled ? s.symbols + 1 : 1, slices ? slices + i : nullptr);
    }
    for (idx i = 0; i < members * parts; i++) {
      Slice<T> cut = of(P, i % parts);
      cut.columns = cut.width;
      cut.inputs = {nullptr, H, cut.units.end - cut.units.begin, one};
      cut.states = cut.codes = {nullptr, 0, 0, one};
      place(arena, cut, 1, heads ? heads + i : nullptr);
    }
  }

  void pack() const {
    const T* const* all = reinterpret_cast<const T* const*>(s.weights);
    for (idx i = 0; i < members * layers * parts; i++) {
      layer(slices[i], all + i / parts * 4, i / parts % layers == 0);
    }
    for (idx i = 0; i < members * parts; i++) {
      const Slice<T>& cut = heads[i];
      const T* w = static_cast<const T*>(s.head_w) + (i / parts * P + cut.units.begin) * H;
      const T* b = static_cast<const T*>(s.head_b) + i / parts * P + cut.units.begin;
      cut.inputs.pack([&](idx n) { return w + n * H; });
      for (idx n = 0; n < cut.width; n++) cut.start[n] = n < cut.inputs.N ? b[n] : T(0);
    }
  }

 private:
  Slice<T> of(idx count, idx part) const {
    const Range r = share(up(count, L) / L, part, parts);
    const idx end = std::min(r.end * L, count), begin = std::min(r.begin * L, end);
    Slice<T> cut = {};
    cut.units = {begin, end};
    cut.width = up(end - begin, L);
    return cut;
  }
  void place(Arena& arena, Slice<T>& cut, idx starts, Slice<T>* out) const {
    for (Matrix<T>* m : {&cut.inputs, &cut.states, &cut.codes}) m->data = arena.take<T>(m->size());
    cut.start = arena.take<T>(starts * cut.columns);
    if (out) *out = cut;
  }
  // Of a gate's column: the gate in torch's order. The GRU's input columns are n, r, z, and those
  // of the state, which begin one later, r, z, n.
  static idx input_gate(idx place) { return C::HIDDEN_BIAS ? (place + C::GATES - 1) % C::GATES : place; }

  void layer(const Slice<T>& cut, const T* const* w, bool first) const {
    const idx width = cut.width, begin = cut.units.begin, count = cut.units.end - begin;
    const idx row_size = first ? I : H, skip = first && tabled ? s.coded : 0;
    const auto row = [&](const T* matrix, idx length, idx gate, idx n) {
      const idx unit = n % width;
      return unit < count ? matrix + (gate * H + begin + unit) * length : nullptr;
    };
    const auto shown = [&](idx n) { return row(w[0], row_size, input_gate(n / width), n); };
    cut.codes.pack(shown);
    cut.inputs.pack([&](idx n) { return shown(n) ? shown(n) + skip : nullptr; });
    cut.states.pack([&](idx n) { return row(w[1], H, n / width, n); });
    for (idx n = 0; n < cut.columns; n++) {
      const idx place = n / width, unit = n % width;
      T sum = 0;
      if (unit < count && place < C::GATES) sum += w[2][input_gate(place) * H + begin + unit];
      const idx shifted = C::HIDDEN_BIAS ? place - 1 : place;
      if (unit < count && shifted >= 0) sum += w[3][shifted * H + begin + unit];
      cut.start[n] = sum;
    }
    if (!first || !tabled) return;
    for (idx v = 1; v <= s.symbols; v++) {
      memcpy(cut.start + v * cut.columns, cut.start, size_t(cut.columns) * sizeof(T));
    }
    cut.codes.add(static_cast<const T*>(s.codes), s.coded, s.symbols + 1, cut.start, cut.columns);
  }
};

}  // namespace
}  // namespace TT_ISA
