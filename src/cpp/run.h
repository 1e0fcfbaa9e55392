// Which driver a layer takes, and which cell and type it is.
#pragma once

#include "team.h"

namespace TT_ISA {
namespace {

template <class T, class W, class C>
int forward_of(const tt_sequence& s) {
  const int members = members_for(s, C::GATES);
  if (members > 1) return team_of<ForwardTeam<T, W, C>>(s, members);
  Forward<T, W, C> job(s);
  if (!carve(job)) return 1;
  tt_parallel(job.threads, prepare_part<decltype(job)>, &job);
  tt_parallel(job.threads, run_part<decltype(job)>, &job);
  return 0;
}

template <class T, class W, class C>
int backward_of(const tt_sequence& s) {
  const int members = members_for(s, C::GATES);
  if (members > 1) return team_of<BackwardTeam<T, W, C>>(s, members);
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
  const bool wide = up(s.H, 4 * lanes<T>) * 8 <= up(s.H, lanes<T>) * 9;
  const auto run = [&](auto cell) { return either<T, W, decltype(cell)>(s, backward); };
  return wide ? with_cell<T, 4>(s.kind, run) : with_cell<T, 1>(s.kind, run);
}

int sequence(const tt_sequence* s, bool backward) {
  if (s->type == TT_DOUBLE) return cell<double, double>(*s, backward);
  return s->low ? cell<float, bf16>(*s, backward) : cell<float, float>(*s, backward);
}

}  // namespace
}  // namespace TT_ISA
