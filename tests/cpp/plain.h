// A recurrent layer in plain loops over doubles, values and gradients: what check.cpp holds the
// kernels against. It shares nothing with them but the meaning of throughtime.h.
#pragma once

#include <cmath>
#include <vector>

#include "throughtime.h"

typedef int64_t idx;
typedef std::vector<double> Line;

struct Problem {
  idx kind, T, B, I, H;
  bool reverse;
  Line x, h0, c0, h_restart, c_restart, w_ih, w_hh, b_ih, b_hh;  // zeros where none are given
  std::vector<uint8_t> reset;                                    // empty: none
  std::vector<int64_t> lengths;                                  // empty: all of T
  Line dy, dh_end, dc_end;

  idx gates() const {
    static const idx all[] = {1, 1, 1, 3, 4, 2};  // by kind
    static_assert(sizeof all / sizeof *all == TT_CELLS, "a cell is missing here");
    return all[kind];
  }
  bool ended(idx t, idx b) const { return !lengths.empty() && t >= lengths[size_t(b)]; }
  // Whether row b restarts before its step at t: in reverse, a flag counts after its own step.
  bool fresh(idx t, idx b) const {
    const idx at = reverse ? t + 1 : t;
    return !reset.empty() && at < T && reset[size_t(at * B + b)];
  }
};

struct Solution {
  Line y, h_end, c_end, dx, dh0, dc0, dh_restart, dc_restart, dw_ih, dw_hh, db_ih, db_hh;
  double kink = 1;  // how near the relu came to the place where it has no derivative
};

inline double logistic(double v) { return 1 / (1 + std::exp(-v)); }

// One row: what each step began with and what its gates became, then all of it backwards.
struct Row {
  const Problem& p;
  Solution& out;
  idx b;
  std::vector<Line> h, c, gate, candidate;  // by time; candidate: what the GRU's r multiplies

  idx G() const { return p.gates(); }
  double w_ih(idx k, idx i) const { return p.w_ih[size_t(k * p.I + i)]; }
  double w_hh(idx k, idx j) const { return p.w_hh[size_t(k * p.H + j)]; }
  double x(idx t, idx i) const { return p.x[size_t((t * p.B + b) * p.I + i)]; }
  Line part(const Line& all) const {
    return Line(all.begin() + b * p.H, all.begin() + (b + 1) * p.H);
  }
  idx time(idx step) const { return p.reverse ? p.T - 1 - step : step; }

  void forward() {
    const size_t steps = size_t(p.T);
    h.resize(steps), c.resize(steps), gate.resize(steps), candidate.resize(steps);
    Line now = part(p.h0), cell = part(p.c0);
    for (idx step = 0; step < p.T; step++) {
      const idx t = time(step);
      if (p.fresh(t, b)) now = part(p.h_restart), cell = part(p.c_restart);
      h[size_t(t)] = now, c[size_t(t)] = cell;
      if (p.ended(t, b)) continue;
      advance(t, now, cell);
      for (idx j = 0; j < p.H; j++) out.y[size_t((t * p.B + b) * p.H + j)] = now[size_t(j)];
    }
    for (idx j = 0; j < p.H; j++) {
      out.h_end[size_t(b * p.H + j)] = now[size_t(j)];
      out.c_end[size_t(b * p.H + j)] = cell[size_t(j)];
    }
  }

  void advance(idx t, Line& now, Line& cell) {
    const Line before = now;
    Line &g = gate[size_t(t)], &s = candidate[size_t(t)];
    g.assign(size_t(G() * p.H), 0), s.assign(size_t(p.H), 0);
    for (idx j = 0; j < p.H; j++) {
      double sum[4], recurrent[4];
      for (idx k = 0; k < G(); k++) {
        const idx row = k * p.H + j;
        sum[k] = p.b_ih[size_t(row)], recurrent[k] = p.b_hh[size_t(row)];
        for (idx i = 0; i < p.I; i++) sum[k] += w_ih(row, i) * x(t, i);
        for (idx i = 0; i < p.H; i++) recurrent[k] += w_hh(row, i) * before[size_t(i)];
      }
      double* at = &g[size_t(j * G())];
      double& value = now[size_t(j)];
      if (p.kind == TT_GRU) {
        s[size_t(j)] = recurrent[2];
        at[0] = logistic(sum[0] + recurrent[0]), at[1] = logistic(sum[1] + recurrent[1]);
        at[2] = std::tanh(sum[2] + at[0] * recurrent[2]);
        value = at[2] + at[1] * (before[size_t(j)] - at[2]);
      } else if (p.kind == TT_LSTM) {
        for (idx k = 0; k < 4; k++) {
          const double total = sum[k] + recurrent[k];
          at[k] = k == 2 ? std::tanh(total) : logistic(total);
        }
        cell[size_t(j)] = at[1] * cell[size_t(j)] + at[0] * at[2];
        value = at[3] * std::tanh(cell[size_t(j)]);
      } else if (p.kind == TT_LI_GRU) {
        const double total = sum[1] + recurrent[1];
        at[0] = logistic(sum[0] + recurrent[0]), at[1] = total < 0 ? 0 : total;
        out.kink = std::fmin(out.kink, std::fabs(total));
        value = at[1] + at[0] * (before[size_t(j)] - at[1]);
      } else {
        const double total = sum[0] + recurrent[0];
        value = p.kind == TT_RNN_TANH ? std::tanh(total) : total;
        if (p.kind == TT_RNN_RELU) out.kink = std::fmin(out.kink, std::fabs(total));
        if (p.kind == TT_RNN_RELU && total < 0) value = 0;
        at[0] = value;
      }
    }
  }

  void backward() {
    Line dh = part(p.dh_end), dc = part(p.dc_end);
    for (idx step = p.T - 1; step >= 0; step--) {
      const idx t = time(step);
      if (!p.ended(t, b)) retreat(t, dh, dc);
      if (!p.fresh(t, b)) continue;
      for (idx j = 0; j < p.H; j++) {
        out.dh_restart[size_t(b * p.H + j)] += dh[size_t(j)];
        out.dc_restart[size_t(b * p.H + j)] += dc[size_t(j)];
      }
      dh.assign(size_t(p.H), 0), dc.assign(size_t(p.H), 0);
    }
    for (idx j = 0; j < p.H; j++) {
      out.dh0[size_t(b * p.H + j)] = dh[size_t(j)];
      out.dc0[size_t(b * p.H + j)] = dc[size_t(j)];
    }
  }

  // Gradients of the pre-activations of unit j: of the input side and of the recurrent side.
  void slopes(idx t, idx j, double d, double& dc, double& direct, double* in, double* re) const {
    const double* at = &gate[size_t(t)][size_t(j * G())];
    const double before = h[size_t(t)][size_t(j)];
    direct = 0;
    if (p.kind == TT_GRU) {
      const double r = at[0], z = at[1], n = at[2];
      in[2] = d * (1 - z) * (1 - n * n);
      in[0] = in[2] * candidate[size_t(t)][size_t(j)] * r * (1 - r);
      in[1] = d * (before - n) * z * (1 - z);
      re[0] = in[0], re[1] = in[1], re[2] = in[2] * r;
      direct = d * z;
    } else if (p.kind == TT_LSTM) {
      const double i = at[0], f = at[1], g = at[2], o = at[3], old = c[size_t(t)][size_t(j)];
      const double tanh_c = std::tanh(f * old + i * g);
      const double dcell = dc + d * o * (1 - tanh_c * tanh_c);
      in[0] = dcell * g * i * (1 - i), in[1] = dcell * old * f * (1 - f);
      in[2] = dcell * i * (1 - g * g), in[3] = d * tanh_c * o * (1 - o);
      for (idx k = 0; k < 4; k++) re[k] = in[k];
      dc = dcell * f;
    } else if (p.kind == TT_LI_GRU) {
      in[0] = re[0] = d * (before - at[1]) * at[0] * (1 - at[0]);
      in[1] = re[1] = at[1] > 0 ? d * (1 - at[0]) : 0;
      direct = d * at[0];
    } else {
      in[0] = p.kind == TT_RNN_TANH ? d * (1 - at[0] * at[0]) : d;
      if (p.kind == TT_RNN_RELU && at[0] <= 0) in[0] = 0;
      re[0] = in[0];
    }
  }

  void retreat(idx t, Line& dh, Line& dc) {
    Line next(size_t(p.H), 0);
    for (idx j = 0; j < p.H; j++) {
      double in[4], re[4], direct;
      const double d = dh[size_t(j)] + p.dy[size_t((t * p.B + b) * p.H + j)];
      slopes(t, j, d, dc[size_t(j)], direct, in, re);
      next[size_t(j)] += direct;
      for (idx k = 0; k < G(); k++) {
        const idx row = k * p.H + j;
        out.db_ih[size_t(row)] += in[k], out.db_hh[size_t(row)] += re[k];
        for (idx i = 0; i < p.I; i++) {
          out.dx[size_t((t * p.B + b) * p.I + i)] += in[k] * w_ih(row, i);
          out.dw_ih[size_t(row * p.I + i)] += in[k] * x(t, i);
        }
        for (idx i = 0; i < p.H; i++) {
          next[size_t(i)] += re[k] * w_hh(row, i);
          out.dw_hh[size_t(row * p.H + i)] += re[k] * h[size_t(t)][size_t(i)];
        }
      }
    }
    dh = next;
  }
};

inline Solution solve(const Problem& p) {
  const size_t states = size_t(p.B * p.H), all = size_t(p.gates() * p.H);
  Solution out;
  out.y.resize(size_t(p.T) * states), out.dx.resize(size_t(p.T * p.B * p.I));
  for (Line* one : {&out.h_end, &out.c_end, &out.dh0, &out.dc0, &out.dh_restart, &out.dc_restart}) {
    one->resize(states);
  }
  out.dw_ih.resize(all * size_t(p.I)), out.dw_hh.resize(all * size_t(p.H));
  out.db_ih.resize(all), out.db_hh.resize(all);
  for (idx b = 0; b < p.B; b++) {
    Row row{p, out, b, {}, {}, {}, {}};
    row.forward();
    row.backward();
  }
  return out;
}
