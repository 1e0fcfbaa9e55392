// Whole loops of sampling: encode what was drawn, run the layers and the head, draw, go on.
//
// Paths are independent, so threads share them out, a few rows at a time; one path of a large
// network is run by several threads, each with its own units. No number depends on how many
// paths or threads there are, or on where a run of steps ends and the next one goes on.
#pragma once

#include "draw.h"
#include "packed.h"

namespace TT_ISA {
namespace {

template <class T, class C>
struct Sampling : Packed<T, C> {
  using Base = Packed<T, C>;
  using Base::H, Base::I, Base::L, Base::layers, Base::members, Base::P, Base::parts, Base::s;
  static constexpr idx AT_ONCE = 24;  // rows: whole tiles of every height
  static constexpr bool CELL = C::CELL_STATE;

  // What a thread works in. Rows of states are `wide` apart.
  struct Work {
    T *x, *sums, *cell, *raw, *previous;
    T* h[2];
    idx *symbol, *order;
    double *distribution, *drawn;
  };
  Work work_[TT_MAX_THREADS];
  Barrier barrier;
  int threads;
  idx at_once, wide, sums_apart, x_apart, raw_apart;

  explicit Sampling(const tt_sampler& args) : Base(args) {
    const idx rows = s.end - s.begin;
    at_once = rows < AT_ONCE ? rows : AT_ONCE;
    const idx chunks = (rows + AT_ONCE - 1) / AT_ONCE;
    const bool small = rows * s.steps * this->work() < 100000;
    threads = int(small ? 1 : std::min(std::min(chunks, s.threads), idx(TT_MAX_THREADS)));
    if (parts > 1 && !tt_crowded(0)) threads = parts;
    if (threads < 1) threads = 1;
    wide = up(H, L) + PAD;
    sums_apart = Base::SUMS * up(H, L) + PAD;
    x_apart = up(I, L);
    raw_apart = up(P, 64);  // parts of a head end at whole vectors, of doubles too
  }

  void carve_work(Arena& arena) {
    const bool shared = parts > 1;
    const idx states = layers * members * at_once * wide, D = std::max(s.columns, idx(1));
    for (int t = 0; t < threads; t++) {
      Work& w = work_[t];
      w = work_[0];
      w.x = arena.take<T>(at_once * x_apart);
      w.sums = arena.take<T>(at_once * sums_apart);
      w.symbol = arena.take<idx>(at_once);
      w.order = arena.take<idx>(s.symbols);
      w.distribution = arena.take<double>(members * raw_apart);
      w.drawn = arena.take<double>(D);
      w.previous = arena.take<T>(at_once * D);
      if (shared && t > 0) continue;  // one path: its state is everybody's
      w.h[0] = arena.take<T>(states);
      w.h[1] = arena.take<T>(states);
      w.cell = CELL ? arena.take<T>(states) : nullptr;
      w.raw = arena.take<T>(members * at_once * raw_apart);
    }
  }

  // Paths [first, first + rows) through all steps, by the crew's member `part`.
  struct Walk {
    const Sampling& q;
    const Work& w;
    idx first, rows;
    int part, crew;
    const tt_sampler& s;
    idx now;  // which of the two states is the latest

    idx state(idx member, idx layer) const { return (member * q.layers + layer) * rows * q.wide; }
    bool begins(idx t) const { return t == 0 && s.fresh; }

    // True: leave, the first of the crew goes on alone.
    bool meet(Barrier& barrier) {
      if (crew == 1 || !barrier.wait(crew)) return false;
      if (part > 0) return true;
      tt_crowded(1);
      crew = 1;
      return false;
    }

    void take_up() {
      now = 0;
      const idx D = s.columns;
      for (idx r = 0; r < rows; r++) {
        if (s.symbols) w.symbol[r] = s.fresh ? s.symbols : static_cast<const idx*>(s.previous)[first + r];
        if (!s.symbols) memcpy(w.previous + r * D, static_cast<const T*>(s.previous) + (first + r) * D, size_t(D) * sizeof(T));
      }
      if (part == 0) states(true);
    }

    void hand_over() {
      if (part > 0) return;
      const idx D = s.columns;
      for (idx r = 0; r < rows; r++) {
        if (s.symbols) static_cast<idx*>(s.previous)[first + r] = w.symbol[r];
        if (!s.symbols) memcpy(static_cast<T*>(s.previous) + (first + r) * D, w.previous + r * D, size_t(D) * sizeof(T));
      }
      states(false);
    }

    // Copies the states [layers, paths, members * H] in or out.
    void states(bool in) {
      for (idx m = 0; m < q.members; m++) {
        for (idx layer = 0; layer < q.layers; layer++) {
          for (idx r = 0; r < rows; r++) {
            const idx place = ((layer * s.paths + first + r) * q.members + m) * q.H;
            const idx here = state(m, layer) + r * q.wide;
            copy_state(w.h[now] + here, static_cast<T*>(s.h) + place, in);
            if (CELL) copy_state(w.cell + here, static_cast<T*>(s.c) + place, in);
          }
        }
      }
    }
    void copy_state(T* here, T* there, bool in) const {
      if (in) {
        copy(here, there, q.H, q.wide);
      } else {
        memcpy(there, here, size_t(q.H) * sizeof(T));
      }
    }

    bool run(Barrier& barrier) {
      take_up();
      if (meet(barrier)) return true;
      for (idx t = 0; t < s.steps; t++) {
        for (idx r = 0; r < rows; r++) encode(t, r);
        for (idx layer = 0; layer < q.layers; layer++) {
          for (idx m = 0; m < q.members; m++) {
            for (int i = part; i < q.parts; i += crew) units(m, layer, q.slice(m, layer, i));
          }
          if (meet(barrier)) return true;
        }
        now = 1 - now;
        for (idx m = 0; m < q.members; m++) {
          for (int i = part; i < q.parts; i += crew) outputs(m, q.head(m, i));
        }
        if (meet(barrier)) return true;
        for (idx r = 0; r < rows; r++) draw(t, r);
      }
      hand_over();
      return false;
    }

    // What the first layer is shown besides what its table holds.
    void encode(idx t, idx r) const {
      T* x = w.x + r * q.x_apart;
      if (s.symbols && !q.tabled) {
        x = put(x, static_cast<const T*>(s.codes) + w.symbol[r] * s.coded, s.coded);
      } else if (!s.symbols) {
        x = shown(x, w.previous + r * s.columns, begins(t));
      }
      if (s.covariates) {
        const idx place = (first + r) * s.covariate_path + (s.step + t) * s.covariates;
        x = put(x, static_cast<const T*>(s.covariate) + place, s.covariates);
      }
      if (s.identity) put(x, static_cast<const T*>(s.identities) + (first + r) * s.identity, s.identity);
    }
    static T* put(T* x, const T* from, idx count) {
      memcpy(x, from, size_t(count) * sizeof(T));
      return x + count;
    }
    // See throughtime/models/encoders.py.
    T* shown(T* x, const T* previous, bool start) const {
      const idx D = s.columns;
      for (idx d = 0; d < D; d++) {
        const bool missing = start || std::isnan(previous[d]);
        const T z = missing ? T(0) : previous[d];
        T* at = x + d;
        *at = s.encoder == TT_COUNTS ? std::log1p(z) : z;
        if (s.encoder == TT_COUNTS) *(at += D) = z / (1 + z);
        if (s.encoder == TT_REALS) {
          *(at += D) = missing ? T(0) : std::log(std::fabs(z) + T(0.05));
          *(at += D) = z > 0 ? T(0) : z;
        }
        *(at += D) = T(missing);
      }
      x[s.coded - 1] = T(start);
      return x + s.coded;
    }

    void units(idx m, idx layer, const Slice<T>& cut) const {
      const idx row = layer || !q.tabled ? 0 : cut.columns;
      for (idx r = 0; r < rows; r++) {
        const T* start = cut.start + (row ? w.symbol[r] * row : 0);
        memcpy(w.sums + r * q.sums_apart, start, size_t(cut.columns) * sizeof(T));
      }
      const T* below = layer ? w.h[1 - now] + state(m, layer - 1) : w.x;
      const T* h = w.h[now] + state(m, layer);
      cut.inputs.add(below, layer ? q.wide : q.x_apart, rows, w.sums, q.sums_apart);
      cut.states.add(h, q.wide, rows, w.sums + (C::HIDDEN_BIAS ? cut.width : 0), q.sums_apart);
      for (idx r = 0; r < rows; r++) {
        const idx place = state(m, layer) + r * q.wide + cut.units.begin;
        cells(s.kind, w.sums + r * q.sums_apart, cut.width, w.h[now] + place,
              CELL ? w.cell + place : nullptr, w.h[1 - now] + place);
      }
    }

    void outputs(idx m, const Slice<T>& cut) const {
      if (cut.width == 0) return;
      T* raw = w.raw + m * rows * q.raw_apart + cut.units.begin;
      for (idx r = 0; r < rows; r++) memcpy(raw + r * q.raw_apart, cut.start, size_t(cut.width) * sizeof(T));
      cut.inputs.add(w.h[now] + state(m, q.layers - 1), q.wide, rows, raw, q.raw_apart);
    }

    void draw(idx t, idx r) const {
      const T* initial = begins(t) ? static_cast<const T*>(s.initial) : nullptr;
      for (idx m = 0; m < q.members; m++) {
        const T* raw = initial ? initial : w.raw + (m * rows + r) * q.raw_apart;
        for (idx p = 0; p < q.P; p++) w.distribution[m * q.raw_apart + p] = double(raw[p]);
      }
      const Uniforms u(s.root, first + r, s.step + t);
      const idx place = (first + r) * s.out_path;
      if (s.symbols) {
        w.symbol[r] = draw_symbol(s, w.distribution, q.raw_apart, u(0), w.order);
        if (part == 0) static_cast<idx*>(s.out)[place + t] = w.symbol[r];
        return;
      }
      T* previous = w.previous + r * s.columns;
      draw_values(s, w.distribution, q.raw_apart, u, w.drawn);
      for (idx d = 0; d < s.columns; d++) {
        previous[d] = T(w.drawn[d]);
        if (part == 0) static_cast<T*>(s.out)[place + t * s.columns + d] = previous[d];
      }
    }
  };

  // The units of one row, in the same code however many rows there are.
  static __attribute__((noinline)) void cells(idx kind, const T* sums, idx width, const T* h,
                                              T* cell, T* next) {
    constexpr idx first = C::HIDDEN_BIAS ? 1 : 0;
    for (idx unit = 0; unit < width; unit += L) {
      Vec<T> v[C::GATES];
      T inputs[3 * L];
      if (first) store(inputs + 2 * L, load(sums + unit));
      for (idx g = 0; g < C::GATES; g++) v[g] = load(sums + (first + g) * width + unit);
      T* own = cell ? cell + unit : nullptr;
      store(next + unit, C::forward(kind, v, 0, inputs, load(h + unit), own, nullptr));
    }
  }

  void rows_of(int part) {
    const idx chunks = (s.end - s.begin + AT_ONCE - 1) / AT_ONCE;
    const Range own = share(chunks, part, threads);
    for (idx i = own.begin; i < own.end; i++) {
      const idx first = s.begin + i * AT_ONCE, rows = std::min(s.end - first, AT_ONCE);
      Walk walk{*this, work_[part], first, rows, 0, 1, s, 0};
      walk.run(barrier);
    }
  }
  void crew(int part, int count) {
    Walk walk{*this, work_[part], s.begin, 1, part, count, s, 0};
    walk.run(barrier);
  }
};

template <class Job>
void sample_rows(void* job, int part) { static_cast<Job*>(job)->rows_of(part); }
template <class Job>
void sample_crew(void* job, int part, int count) { static_cast<Job*>(job)->crew(part, count); }

enum Ask { SIZE, PACK, RUN };

template <class T, class C>
int64_t ask_of(const tt_sampler& s, Ask ask) {
  Arena packed;
  if (ask != RUN) {
    Packed<T, C> job(s);
    packed.base = ask == SIZE ? nullptr : static_cast<char*>(s.packed);
    job.carve(packed);
    if (ask == PACK) job.pack();
    return int64_t(packed.used);
  }
  Sampling<T, C> job(s);
  packed.base = static_cast<char*>(s.packed);
  job.carve(packed);
  Arena measure;
  job.carve_work(measure);
  Arena arena;
  if (!arena.open(measure.used)) return 1;
  job.carve_work(arena);
  if (job.parts > 1 && job.threads > 1) {
    tt_team(job.threads, sample_crew<Sampling<T, C>>, &job);
  } else {
    tt_parallel(job.threads, sample_rows<Sampling<T, C>>, &job);
  }
  return 0;
}

template <class T>
int64_t ask_kind(const tt_sampler& s, Ask ask) {
  return with_cell<T>(s.kind, [&](auto cell) { return ask_of<T, decltype(cell)>(s, ask); });
}

int64_t sample(const tt_sampler* s, int64_t ask) {
  return s->type == TT_DOUBLE ? ask_kind<double>(*s, Ask(ask)) : ask_kind<float>(*s, Ask(ask));
}

}  // namespace
}  // namespace TT_ISA
