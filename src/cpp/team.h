// A single row, its units shared out among threads.
//
// With one row there is no batch to share out. Each thread keeps the weights of its own units in its
// own cache and computes them for all time steps; the threads meet once a step, where the state
// (backward: the gradients of the pre-activations) passes from one to the other. Every sum is
// formed in the same order as on one thread.
#pragma once

#include <sched.h>

#include <atomic>

#include "sequence.h"

namespace TT_ISA {
namespace {

// Where threads meet about a million times a second, spinning. That works only while each has a core
// to itself: once one has evidently been taken off its core, the team breaks up at its next meeting,
// and the first member goes on alone.
class Barrier {
 public:
  // True: go on alone (member 0) or leave (the others). Everybody hears the same.
  bool wait(int members) {
    if (members == 1) return false;
    const unsigned now = round.load(std::memory_order_relaxed);
    if (waiting.fetch_add(1, std::memory_order_acq_rel) + 1 == members) {
      waiting.store(0, std::memory_order_relaxed);
      over = crowded.load(std::memory_order_relaxed);
      round.store(now + 1, std::memory_order_release);
      return over;
    }
    for (int spins = 0; round.load(std::memory_order_acquire) == now; spins++) {
      if (spins < PATIENCE) {
        relax();
      } else {
        crowded.store(true, std::memory_order_relaxed);
        sched_yield();
      }
    }
    return over;
  }

 private:
  static void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }
  alignas(64) std::atomic<int> waiting{0};
  static constexpr int PATIENCE = 2000;  // about 0.1 ms
  alignas(64) std::atomic<unsigned> round{0};
  std::atomic<bool> crowded{false};
  bool over = false;
};

// How many threads a single row is worth: meeting costs about as much as 5,000 products.
constexpr idx UNIT_WORK = 6000;

TT_INLINE int members_for(const tt_sequence& s, idx gates) {
  if (s.B != 1 || s.T < 8 || s.threads < 2 || tt_crowded(0)) return 1;
  const idx most = (s.H + lanes<float> - 1) / lanes<float>;
  idx members = gates * s.H * s.H / UNIT_WORK;
  if (members > s.threads) members = s.threads;
  if (members > most) members = most;
  if (members > TT_MAX_THREADS) members = TT_MAX_THREADS;
  return members < 1 ? 1 : int(members);
}

template <class T, class W, class C>
struct ForwardTeam : Forward<T, W, C> {
  using Base = Forward<T, W, C>;
  using Base::H, Base::Hp, Base::I, Base::L, Base::NV, Base::panels, Base::s, Base::T_;
  Barrier barrier;

  explicit ForwardTeam(const tt_sequence& args) : Base(args) {}

  void run(int part, int members) {
    Range own = share(panels, part, members);
    Range units = {own.begin * C::UNITS * L, own.end * C::UNITS * L};
    Base::prepare(own);
    const idx per = this->steps(1), width = this->width();
    T* inputs = this->work[0];
    T* h = inputs + per * width;
    T *next = h + Hp, *cell = next + Hp;
    take_up(0, units, s.h0, s.c0, h, cell);
    const idx stride = s.reverse ? -s.x_t : s.x_t;
    for (idx begin = 0; begin < T_; begin += per) {
      const idx end = begin + per < T_ ? begin + per : T_;
      plain<T, W, NV>(static_cast<const T*>(s.x) + this->time(begin) * s.x_t, stride, end - begin,
                      this->w_ih + own.begin * I * NV * L, I, (own.end - own.begin) * NV * L,
                      inputs + own.begin * NV * L, width, this->bias + own.begin * NV * L, false);
      for (idx step = begin; step < end; step++) {
        if (barrier.wait(members)) {
          if (part > 0) return;
          tt_crowded(1);
          members = 1;
          own = {0, panels};
          units = {0, Hp};
        }
        const idx place = this->time(step);
        T* saved = s.reserve ? static_cast<T*>(s.reserve) + place * Hp * C::SAVED : nullptr;
        typename Base::Step body{*this, inputs + (step - begin) * width, h, next, cell,
                                 static_cast<T*>(s.y) + place * H, saved, step, 0};
        single<NV>(body, own.begin, own.end, step % 2);
        if (step + 1 < T_ && this->fresh(step + 1, 0)) {
          take_up(step + 1, units, s.h_restart, s.c_restart, next, cell);
        }
        T* swap = h;
        h = next;
        next = swap;
      }
    }
    const idx count = (units.end < H ? units.end : H) - units.begin;
    if (count <= 0) return;
    memcpy(static_cast<T*>(s.h_end) + units.begin, h + units.begin, size_t(count) * sizeof(T));
    if (!C::CELL_STATE) return;
    memcpy(static_cast<T*>(s.c_end) + units.begin, cell + units.begin, size_t(count) * sizeof(T));
  }

  // The state of some units before a step: a given one, or what a restart puts in its place.
  void take_up(idx step, Range units, const void* h_from, const void* c_from, T* h, T* cell) const {
    if (this->fresh(step, 0)) {
      h_from = s.h_restart;
      c_from = s.c_restart;
    }
    const idx size = units.end - units.begin;
    const idx count = (units.end < H ? units.end : H) - units.begin;
    if (size <= 0) return;
    copy(h + units.begin, row_of<T>(h_from, 0, H, units.begin), count < 0 ? 0 : count, size);
    if (!C::CELL_STATE) return;
    copy(cell + units.begin, row_of<T>(c_from, 0, H, units.begin), count < 0 ? 0 : count, size);
  }
};

template <class T, class W, class C>
struct BackwardTeam : Backward<T, W, C> {
  using Base = Backward<T, W, C>;
  using Base::H, Base::Hp, Base::I, Base::Ip, Base::L, Base::s, Base::T_;
  Barrier barrier;

  explicit BackwardTeam(const tt_sequence& args) : Base(args) {}

  void run(int part, int members) {
    const int all = members;
    Own own = own_of(part, members);
    const idx per = this->steps(1), stride = this->row_size();
    typename Base::Buffers at = this->buffers(0, per);
    pack(part, members, own.units);
    clear(own, at);
    for (idx end = T_; end > 0;) {
      const idx begin = end > per ? end - per : 0, count = end - begin;
      const Range steps = share(count, part, members);
      this->gather(begin + steps.begin, begin + steps.end, {0, 1}, at.x + steps.begin * (Ip + PAD));
      for (idx step = end - 1; step >= begin; step--) {
        T* slope = at.grads + (step - begin) * stride;
        this->slope(step, 0, {own.units.begin, up(own.units.end, L)}, slope,
                    at.hidden + (step - begin) * (Hp + PAD), at.dh, at.dc, at.blank);
        if (barrier.wait(members)) {
          if (part > 0) return;
          tt_crowded(1);
          own = own_of(0, members = 1);
        }
        for (int m = members == 1 ? 0 : part; m < (members == 1 ? all : part + 1); m++) {
          const Range some = own_of(m, all).units;
          row_product<T, W>(slope + C::RECURRENT * Hp, this->w_hh + some.begin * this->K(), this->K(),
                            some.end - some.begin, at.dh + some.begin, step % 2);
        }
        if (this->fresh(step, 0)) this->restart_row(0, own.units, at.dh, at.dc);
      }
      this->weights(at, count, own.k, own.columns, this->sums[0]);
      if (s.dx) this->inputs(at, begin, {0, 1}, share(count, part, members));
      end = begin;
      if (barrier.wait(members)) {
        if (part > 0) return;
        tt_crowded(1);
        own = own_of(0, members = 1);
      }
    }
    this->finish(0, own.units, at.dh, at.dc);
    this->reduce(share(H, part, members));
  }

  // What is a member's: units, rows of the gradients of the weights, columns of the biases'.
  struct Own {
    Range units, k, columns;
  };

  Own own_of(int part, int members) const {
    const Range units = share(Hp / L, part, members), columns = share(Base::D * Hp / L, part, members);
    return {{units.begin * L, units.end * L < H ? units.end * L : H},
            share(this->K(), part, members),
            {columns.begin * L, columns.end * L}};
  }

  void pack(int part, int members, Range units) {
    pack_rows<T>(this->w_hh + units.begin * this->K(), this->K(), units.end - units.begin, 0, 1,
                 this->matrix(s.w_hh, H, false, units.begin));
    if (s.dx) pack_rows<T>(this->w_ih, this->K(), I, part, members, this->matrix(s.w_ih, I, true, 0));
  }

  void clear(const Own& own, const typename Base::Buffers& at) const {
    T* d_hh = this->sums[0];
    T* d_ih = d_hh + this->K() * Hp;
    T* d_b = d_ih + this->K() * Ip;
    const idx rows = own.k.end - own.k.begin, columns = own.columns.end - own.columns.begin;
    memset(d_hh + own.k.begin * Hp, 0, size_t(rows * Hp) * sizeof(T));
    memset(d_ih + own.k.begin * Ip, 0, size_t(rows * Ip) * sizeof(T));
    memset(d_b + own.columns.begin, 0, size_t(columns) * sizeof(T));
    if (own.units.begin == 0) memset(at.blank, 0, size_t(Hp) * sizeof(T));
    this->start(0, own.units, at.dh, at.dc);
  }
};

template <class Job>
void team_part(void* job, int part, int members) { static_cast<Job*>(job)->run(part, members); }

template <class Job>
int team_of(const tt_sequence& s, int members) {
  Job job(s);
  if (!carve(job)) return 1;
  tt_team(members, team_part<Job>, &job);
  return 0;
}

}  // namespace
}  // namespace TT_ISA
