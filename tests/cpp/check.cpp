// Drives every entry of the native library over odd sizes, with memory guarded on both sides, and
// compares with the plain loops of plain.h. Built with the sanitizers by tests/test_sanitizers.py.
//
//   check INSTRUCTIONS CASES
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <random>
#include <thread>

#include "plain.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(place, size)
#define ASAN_UNPOISON_MEMORY_REGION(place, size)
#endif

namespace {

thread_local std::mt19937_64 source;
thread_local const char* now = "";  // what is being checked

idx below(idx n) { return idx(source() % uint64_t(n)); }
bool coin() { return source() % 2; }
double uniform() { return double(source() >> 11) / 4503599627370496.0 - 1; }  // in [-1, 1)
template <class Choice>
auto any(std::initializer_list<Choice> of) { return of.begin()[below(idx(of.size()))]; }

void require(bool right, const char* what, idx place = -1) {
  if (right) return;
  fprintf(stderr, "%s: %s, at %lld\n", now, what, (long long)place);
  abort();
}

// An array between two forbidden zones, full of NaN to begin with. Empty ones are null, as torch's.
template <class T>
class Guarded {
 public:
  explicit Guarded(idx count_, bool given = true) : count(given ? count_ : 0) {
    if (!count) return;
    base = static_cast<unsigned char*>(malloc(size()));
    memset(base, MARK, size());
    data = reinterpret_cast<T*>(base + ZONE);
    memset(static_cast<void*>(data), 0xff, bytes());
    ASAN_POISON_MEMORY_REGION(base, ZONE);
    ASAN_POISON_MEMORY_REGION(base + ZONE + bytes(), ZONE);
  }
  Guarded(idx count_, const Line& from, bool given = true) : Guarded(count_, given) {
    for (idx i = 0; i < count; i++) data[i] = T(from[size_t(i)]);
  }
  Guarded(const Guarded&) = delete;
  ~Guarded() {
    if (!base) return;
    ASAN_UNPOISON_MEMORY_REGION(base, size());
    for (size_t i = 0; i < ZONE; i++) {
      require(base[i] == MARK && base[ZONE + bytes() + i] == MARK, "a guard was written to");
    }
    free(base);
  }
  T* data = nullptr;
  const idx count;

 private:
  static constexpr size_t ZONE = 1024;
  static constexpr unsigned char MARK = 0xa5;
  unsigned char* base = nullptr;
  size_t bytes() const { return size_t(count) * sizeof(T); }
  size_t size() const { return bytes() + 2 * ZONE; }
};

template <class T>
void same(const Guarded<T>& found, const Line& truth, const char* what) {
  double most = 1;
  for (double value : truth) most = std::max(most, std::fabs(value));
  const double error = (sizeof(T) == 8 ? 1e-11 : 2e-5) * most;
  for (idx i = 0; i < found.count; i++) {
    require(std::fabs(double(found.data[i]) - truth[size_t(i)]) <= error, what, i);
  }
}

// A float (or bfloat16) that the kernels can hold exactly, so that both sides begin alike.
double held(double value, bool float_, bool low = false) {
  if (!float_) return value;
  float short_ = float(value);
  if (!low) return double(short_);
  uint32_t bits;
  memcpy(&bits, &short_, 4);
  bits = (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000u;
  memcpy(&short_, &bits, 4);
  return double(short_);
}

Line random_line(idx count, bool float_, double size = 1, bool low = false) {
  Line line(static_cast<size_t>(count));
  for (double& value : line) value = held(size * uniform(), float_, low);
  return line;
}

// Rows a distance apart; what lies between them is NaN.
struct Strides {
  idx t, b, span;

  Strides(idx T, idx B, idx width) {
    const idx apart = width + below(3);
    const bool rows_first = coin();
    t = rows_first ? apart : B * apart;
    b = rows_first ? T * apart : apart;
    span = T && B && width ? (T - 1) * t + (B - 1) * b + width : 0;
  }
  template <class T>
  void lay(Guarded<T>& out, const Line& from, const Problem& p, idx width) const {
    for (idx step = 0; out.count && step < p.T; step++) {
      for (idx row = 0; row < p.B; row++) {
        for (idx i = 0; i < width; i++) {
          out.data[step * t + row * b + i] = T(from[size_t((step * p.B + row) * width + i)]);
        }
      }
    }
  }
};

struct Optional {
  bool h_restart, c_restart, b_ih, b_hh, dx, dh_restart, dc_restart, dy, dh_end, dc_end;
  bool low;
  idx threads;
};

Problem problem(idx kind, idx T, idx B, idx I, idx H, bool float_, const Optional& use) {
  Problem p{kind, T, B, I, H, coin(), {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}};
  const idx gates = p.gates() * H, states = B * H;
  const auto given = [&](bool there, idx count, double size) {
    return there ? random_line(count, float_, size) : Line(static_cast<size_t>(count));
  };
  p.x = random_line(T * B * I, float_);
  p.h0 = random_line(states, float_), p.c0 = random_line(states, float_);
  p.h_restart = given(use.h_restart, states, 1), p.c_restart = given(use.c_restart, states, 1);
  const double size = 1 / std::sqrt(double(H));
  p.w_ih = random_line(gates * I, float_, size, use.low);
  p.w_hh = random_line(gates * H, float_, size, use.low);
  p.b_ih = given(use.b_ih, gates, 1), p.b_hh = given(use.b_hh, gates, 1);
  const double density = any({0.0, 0.1, 0.5, 1.0});
  if (coin()) {
    p.reset.resize(size_t(T * B));
    for (uint8_t& flag : p.reset) flag = std::fabs(uniform()) < density;
  }
  if (coin()) {
    p.lengths.resize(size_t(B));
    for (int64_t& length : p.lengths) length = below(T + 1);
  }
  p.dy = given(use.dy, T * states, 1);
  p.dh_end = given(use.dh_end, states, 1), p.dc_end = given(use.dc_end, states, 1);
  return p;
}

template <class T>
void run(const Problem& p, const Solution& truth, const Optional& use) {
  const bool lstm = p.kind == TT_LSTM;
  const idx gates = p.gates() * p.H, states = p.B * p.H;
  const Strides x_at(p.T, p.B, p.I), dy_at(p.T, p.B, p.H);
  Guarded<T> x(x_at.span), dy(dy_at.span, use.dy);
  x_at.lay(x, p.x, p, p.I);
  dy_at.lay(dy, p.dy, p, p.H);
  Guarded<T> h0(states, p.h0), c0(states, p.c0, lstm);
  Guarded<T> h_restart(states, p.h_restart, use.h_restart);
  Guarded<T> c_restart(states, p.c_restart, use.c_restart && lstm);
  Guarded<T> w_ih(gates * p.I, p.w_ih), w_hh(gates * p.H, p.w_hh);
  Guarded<T> b_ih(gates, p.b_ih, use.b_ih), b_hh(gates, p.b_hh, use.b_hh);
  Guarded<uint8_t> reset(idx(p.reset.size()));
  Guarded<int64_t> lengths(idx(p.lengths.size()));
  std::copy(p.reset.begin(), p.reset.end(), reset.data);
  std::copy(p.lengths.begin(), p.lengths.end(), lengths.data);
  const idx type = sizeof(T) == 8 ? TT_DOUBLE : TT_FLOAT;
  Guarded<T> reserve(tt_reserve(p.kind, type, p.T, p.B, p.H));

  tt_sequence s = {};
  s.kind = p.kind, s.type = type, s.low = use.low, s.T = p.T, s.B = p.B, s.I = p.I, s.H = p.H;
  s.reverse = p.reverse, s.threads = use.threads;
  s.x = x.data, s.x_t = x_at.t, s.x_b = x_at.b;
  s.h0 = h0.data, s.c0 = c0.data, s.h_restart = h_restart.data, s.c_restart = c_restart.data;
  s.w_ih = w_ih.data, s.w_hh = w_hh.data, s.b_ih = b_ih.data, s.b_hh = b_hh.data;
  s.reset = reset.data, s.lengths = lengths.data;
  Guarded<T> silent(p.T * states), y(p.T * states), h_end(states), c_end(states, lstm);
  s.y = silent.data, s.h_end = h_end.data, s.c_end = c_end.data;
  require(tt_forward(&s) == 0, "forward without a reserve failed");
  s.y = y.data, s.reserve = reserve.data;
  require(tt_forward(&s) == 0, "forward failed");
  const size_t size = size_t(y.count) * sizeof(T);
  require(!size || !memcmp(silent.data, y.data, size), "the reserve changes values");
  same(y, truth.y, "y"), same(h_end, truth.h_end, "h_end"), same(c_end, truth.c_end, "c_end");

  Guarded<T> dh_end(states, p.dh_end, use.dh_end), dc_end(states, p.dc_end, use.dc_end && lstm);
  Guarded<T> dx(p.T * p.B * p.I, use.dx), dh0(states), dc0(states, lstm);
  Guarded<T> dh_restart(states, use.dh_restart), dc_restart(states, use.dc_restart && lstm);
  Guarded<T> dw_ih(gates * p.I), dw_hh(gates * p.H), db_ih(gates, use.b_ih), db_hh(gates, use.b_hh);
  s.dy = dy.data, s.dy_t = dy_at.t, s.dy_b = dy_at.b;
  s.dh_end = dh_end.data, s.dc_end = dc_end.data;
  s.dx = dx.data, s.dh0 = dh0.data, s.dc0 = dc0.data;
  s.dh_restart = dh_restart.data, s.dc_restart = dc_restart.data;
  s.dw_ih = dw_ih.data, s.dw_hh = dw_hh.data, s.db_ih = db_ih.data, s.db_hh = db_hh.data;
  require(tt_backward(&s) == 0, "backward failed");
  same(dx, truth.dx, "dx"), same(dh0, truth.dh0, "dh0"), same(dc0, truth.dc0, "dc0");
  same(dh_restart, truth.dh_restart, "dh_restart");
  same(dc_restart, truth.dc_restart, "dc_restart");
  same(dw_ih, truth.dw_ih, "dw_ih"), same(dw_hh, truth.dw_hh, "dw_hh");
  same(db_ih, truth.db_ih, "db_ih"), same(db_hh, truth.db_hh, "db_hh");
}

const char* const NAMES[] = {"rnn_tanh", "rnn_relu", "rnn_identity", "gru", "lstm", "li_gru"};

void sequence(idx kind, idx T, idx B, idx I, idx H, idx threads, bool double_) {
  Optional use;
  for (bool* one : {&use.h_restart, &use.c_restart, &use.b_ih, &use.b_hh, &use.dx, &use.dh_restart,
                    &use.dc_restart, &use.dy, &use.dh_end, &use.dc_end}) {
    *one = below(4) > 0;
  }
  use.low = !double_ && below(4) == 0;
  use.threads = threads;
  char name[120];
  snprintf(name, sizeof name, "%s %s T=%d B=%d I=%d H=%d threads=%d", NAMES[kind],
           double_ ? "double" : use.low ? "bfloat16" : "float", int(T), int(B), int(I), int(H),
           int(threads));
  now = name;
  for (;;) {
    const Problem p = problem(kind, T, B, I, H, !double_, use);
    const Solution truth = solve(p);
    if (truth.kink < 1e-5) continue;
    double_ ? run<double>(p, truth, use) : run<float>(p, truth, use);
    break;
  }
  now = "";
}

idx odd_size() { return coin() ? 1 + below(9) : any<idx>({15, 16, 17, 31, 33, 40, 65}); }

void sequences(idx cases, uint64_t seed) {
  source.seed(seed);
  for (idx i = 0; i < cases; i++) {
    const idx kind = i % TT_CELLS, B = below(11), I = odd_size(), H = odd_size();
    sequence(kind, below(10), B, I, H, 1 + below(3), coin());
  }
}

// Work enough for several threads, batches and single rows; more threads than there may be.
void large(uint64_t seed) {
  source.seed(seed);
  for (idx kind = 0; kind < TT_CELLS; kind++) {
    sequence(kind, 37, 7, 21, 35, 3, kind % 2);
    sequence(kind, 3, 70, 9, 40, 99, kind % 2 == 0);
    for (idx threads : {2, 3}) {
      usleep(260000);  // a team that was broken up keeps others from forming for a while
      sequence(kind, 9, 1, 5, kind < TT_GRU ? 141 : 83, threads, kind % 2);
    }
  }
}

// A stack of layers step by step; stream: the state goes from call to call by itself.
template <class T>
void stack(idx kind, idx layers, idx B, idx I, idx H, idx threads, idx steps) {
  now = NAMES[kind];
  const bool float_ = sizeof(T) == 4, lstm = kind == TT_LSTM;
  const Optional use = {true, true, coin(), coin(), true, true, true, true, true, true, false, 1};
  std::vector<Problem> all;
  std::vector<std::unique_ptr<Guarded<T>>> kept;
  std::vector<const void*> table;
  Line h, c;
  for (idx layer = 0; layer < layers; layer++) {
    all.push_back(problem(kind, steps, B, layer ? H : I, H, float_, use));
    Problem& p = all.back();
    p.reverse = false, p.reset.clear(), p.lengths.clear();
    if (layer) p.x = solve(all[size_t(layer - 1)]).y;
    const idx gates = p.gates() * H;
    const auto keep = [&](idx count, const Line& from, bool given) {
      kept.push_back(std::make_unique<Guarded<T>>(count, from, given));
      table.push_back(kept.back()->data);
    };
    keep(gates * p.I, p.w_ih, true), keep(gates * H, p.w_hh, true);
    keep(gates, p.b_ih, use.b_ih), keep(gates, p.b_hh, use.b_hh);
    h.insert(h.end(), p.h0.begin(), p.h0.end()), c.insert(c.end(), p.c0.begin(), p.c0.end());
  }
  const idx states = layers * B * H;
  Guarded<T> x(steps * B * I, all[0].x), h0(states, h), c0(states, c, lstm);
  Guarded<T> y(steps * B * H), h_next(steps * states), c_next(steps * states, lstm);
  tt_stream s = {};
  s.layers = {kind, float_ ? TT_FLOAT : TT_DOUBLE, layers, I, H, threads, table.data()};
  s.B = B, s.h = h0.data, s.c = c0.data;
  s.y_next = y.data, s.h_next = h_next.data, s.c_next = c_next.data;
  for (idx step = 0; step < steps; step++) tt_stream_step(&s, x.data + step * B * I);
  const Solution truth = solve(all.back());
  same(y, truth.y, "y of a stream");
  Guarded<T> h1(states), c1(states, lstm);
  const int code = tt_step_layers(&s.layers, x.data, h0.data, c0.data, h1.data, c1.data, B);
  require(code == 0 && !memcmp(h1.data, h_next.data, size_t(states) * sizeof(T)), "h of a step");
  require(!lstm || !memcmp(c1.data, c_next.data, size_t(states) * sizeof(T)), "c of a step");
}

void stacks(idx cases, uint64_t seed) {
  source.seed(seed);
  for (idx i = 0; i < cases; i++) {
    const idx layers = 1 + below(3), B = 1 + below(4), I = odd_size(), H = odd_size();
    const idx threads = 1 + below(3), steps = 1 + below(4);
    coin() ? stack<float>(i % 5, layers, B, I, H, threads, steps)
           : stack<double>(i % 5, layers, B, I, H, threads, steps);
  }
  stack<float>(TT_GRU, 1, 1, 150, 203, 3, 2);  // large enough for threads
  stack<double>(TT_LSTM, 1, 2, 150, 161, 2, 2);
}

template <class T>
void head(idx N, idx H, idx V, idx threads, bool gradients) {
  now = "head";
  const bool float_ = sizeof(T) == 4;
  const idx apart = H + below(5), span = N ? (N - 1) * apart + H : 0;
  const Line y = random_line(N * H, float_), w = random_line(V * H, float_);
  const Line b = random_line(V, float_), weight = random_line(N, float_);
  Guarded<T> y_(span), w_(V * H, w), b_(V, b), weight_(N, weight);
  Guarded<int64_t> target(N);
  Line dy(y.size()), dw(w.size()), db(b.size());
  double truth = 0, size = 1;  // size: of what is added up
  for (idx n = 0; n < N; n++) {
    std::copy(&y[size_t(n * H)], &y[size_t(n * H)] + H, y_.data + n * apart);
    target.data[n] = below(V);
    Line logit = b;
    double mass = 0;
    for (idx v = 0; v < V; v++) {
      for (idx i = 0; i < H; i++) logit[size_t(v)] += y[size_t(n * H + i)] * w[size_t(v * H + i)];
      mass += std::exp(logit[size_t(v)]);
    }
    const double nats = weight[size_t(n)] * (std::log(mass) - logit[size_t(target.data[n])]);
    truth += nats, size += std::fabs(nats);
    for (idx v = 0; v < V; v++) {
      const double one = std::exp(logit[size_t(v)]) / mass - (v == target.data[n]);
      const double d = weight[size_t(n)] * one;
      db[size_t(v)] += d;
      for (idx i = 0; i < H; i++) {
        dy[size_t(n * H + i)] += d * w[size_t(v * H + i)];
        dw[size_t(v * H + i)] += d * y[size_t(n * H + i)];
      }
    }
  }
  Guarded<double> total(1);
  Guarded<T> dy_(span, gradients), dw_(V * H, gradients), db_(V, gradients);
  tt_head s = {float_ ? TT_FLOAT : TT_DOUBLE, N, H, V, threads, y_.data, apart, w_.data, b_.data,
               target.data, weight_.data, total.data, dy_.data, dw_.data, db_.data};
  require(tt_categorical(&s) == 0, "the head failed");
  require(std::fabs(*total.data - truth) <= (float_ ? 1e-5 : 1e-11) * size, "nats");
  same(dw_, dw, "dw"), same(db_, db, "db");
  Guarded<T> rows(N * H, gradients);
  for (idx i = 0; i < rows.count; i++) rows.data[i] = dy_.data[i / H * apart + i % H];
  same(rows, dy, "dy");
  if (N == 0) return;
  target.data[N - 1] = coin() ? V : -1;
  require(tt_categorical(&s) == 2, "a target that is no symbol was taken");
}

void heads(idx cases, uint64_t seed) {
  source.seed(seed);
  for (idx i = 0; i < cases; i++) {
    const idx N = below(4) ? below(20) : below(200), threads = 1 + below(3);
    const idx H = odd_size(), V = 1 + below(2) * 60 + below(20);
    coin() ? head<float>(N, H, V, threads, coin()) : head<double>(N, H, V, threads, coin());
  }
}

// Numbers of every kind, for what arithmetic on them might do; values are the Python tests' matter.
void extremes() {
  now = "extreme numbers";
  const double wild[] = {INFINITY, -INFINITY, NAN, 3e38, -3e38, 1e-45, 89, -88.5, 0};
  const idx T = 10, B = 3, I = 4, H = 7;
  for (idx kind = 0; kind < TT_CELLS; kind++) {
    const idx gates = tt_gates(kind) * H;
    Guarded<float> x(T * B * I), state(B * H), w_ih(gates * I), w_hh(gates * H), b(gates);
    for (Guarded<float>* one : {&x, &state, &w_ih, &w_hh, &b}) {
      for (idx i = 0; i < one->count; i++) one->data[i] = float(below(4) ? uniform() : any({wild[below(9)]}));
    }
    Guarded<float> reserve(tt_reserve(kind, TT_FLOAT, T, B, H)), y(T * B * H), end(B * H), c(B * H);
    tt_sequence s = {};
    s.kind = kind, s.T = T, s.B = B, s.I = I, s.H = H, s.threads = 2, s.low = kind % 2;
    s.x = x.data, s.x_t = B * I, s.x_b = I, s.h0 = s.c0 = state.data, s.w_ih = w_ih.data;
    s.w_hh = w_hh.data, s.b_ih = s.b_hh = b.data, s.reserve = reserve.data;
    s.y = y.data, s.h_end = end.data, s.c_end = c.data;
    require(tt_forward(&s) == 0, "forward failed");
    Guarded<float> dw_ih(gates * I), dw_hh(gates * H), dx(T * B * I), dh(B * H), dc(B * H);
    s.dy = y.data, s.dy_t = B * H, s.dy_b = H, s.dx = dx.data, s.dh0 = dh.data, s.dc0 = dc.data;
    s.dw_ih = dw_ih.data, s.dw_hh = dw_hh.data;
    require(tt_backward(&s) == 0, "backward failed");
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) return 2;
  const idx cases = atoi(arguments[2]);
  if (!tt_instructions(arguments[1])) {
    printf("%s does not run here\n", arguments[1]);
    return 3;
  }
  require(!strcmp(tt_instructions(nullptr), arguments[1]), "not the instructions asked for");
  tt_poison(1);
  sequences(cases, 1);
  large(2);
  stacks(cases / 2, 3);
  heads(cases / 2, 4);
  extremes();
  std::thread beside(sequences, cases / 2, 5);  // each with a workspace of its own
  sequences(cases / 2, 6);
  beside.join();
  printf("%s: right\n", arguments[1]);
  return 0;
}
