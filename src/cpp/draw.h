// Draws from distributions: uniforms tied to path and step, and the maps from them to values.
//
// The same maps as in throughtime/emissions, in double precision whatever the network computes in.
// Raw numbers become parameters as `emissions/numeric.py` says.
#pragma once

#include <algorithm>

#include "counts.h"
#include "gemm.h"
#include "internal.h"

namespace TT_ISA {
namespace {

// As throughtime/rng.py: SplitMix64's finaliser (Steele, Lea & Flood 2014) of (stream, step, draw).
struct Uniforms {
  uint64_t stream;
  uint64_t step;

  static uint64_t mix(uint64_t x) {
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
  }
  Uniforms(int64_t root, idx path, idx step)
      : stream(mix(mix(uint64_t(path)) ^ uint64_t(root))), step(uint64_t(step)) {}
  double operator()(idx draw) const {
    const uint64_t bits = mix(stream ^ mix((step << 16) + uint64_t(draw)));
    return (double(int64_t(bits >> 11)) + 0.5) * 0x1p-53;
  }
};

// Constraint maps. NaN passes all of them.
inline double limited(double raw) { return raw < -1e10 ? -1e10 : raw > 1e10 ? 1e10 : raw; }
inline double positive(double raw, double floor) {
  const double x = limited(raw);
  return floor + (x > 20 ? x : std::log1p(std::exp(x)));
}
inline double bounded_exp(double raw, double bound) {
  return std::exp(bound * std::tanh(raw / bound));
}

inline double polynomial(const double* c, int count, double x) {
  double sum = c[count - 1];
  for (int i = count - 2; i >= 0; i--) sum = sum * x + c[i];
  return sum;
}

// The standard normal quantile: algorithm AS 241 (Wichura 1988, Appl. Stat. 37), to about 1e-16.
inline double normal_quantile(double p) {
  static const double A[] = {3.3871328727963666080e0, 1.3314166789178437745e+2,
                             1.9715909503065514427e+3, 1.3731693765509461125e+4,
                             4.5921953931549871457e+4, 6.7265770927008700853e+4,
                             3.3430575583588128105e+4, 2.5090809287301226727e+3};
  static const double B[] = {1.0, 4.2313330701600911252e+1, 6.8718700749205790830e+2,
                             5.3941960214247511077e+3, 2.1213794301586595867e+4,
                             3.9307895800092710610e+4, 2.8729085735721942674e+4,
                             5.2264952788528545610e+3};
  static const double C[] = {1.42343711074968357734e0, 4.63033784615654529590e0,
                             5.76949722146069140550e0, 3.64784832476320460504e0,
                             1.27045825245236838258e0, 2.41780725177450611770e-1,
                             2.27238449892691845833e-2, 7.74545014278341407640e-4};
  static const double D[] = {1.0, 2.05319162663775882187e0, 1.67638483018380384940e0,
                             6.89767334985100004550e-1, 1.48103976427480074590e-1,
                             1.51986665636164571966e-2, 5.47593808499534494600e-4,
                             1.05075007164441684324e-9};
  static const double E[] = {6.65790464350110377720e0, 5.46378491116411436990e0,
                             1.78482653991729133580e0, 2.96560571828504891230e-1,
                             2.65321895265761230930e-2, 1.24266094738807843860e-3,
                             2.71155556874348757815e-5, 2.01033439929228813265e-7};
  static const double F[] = {1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1,
                             1.48753612908506148525e-2, 7.86869131145613259100e-4,
                             1.84631831751005468180e-5, 1.42151175831644588870e-7,
                             2.04426310338993978564e-15};
  const double q = p - 0.5;
  if (std::fabs(q) <= 0.425) {
    const double r = 0.180625 - q * q;
    return q * polynomial(A, 8, r) / polynomial(B, 8, r);
  }
  double r = std::sqrt(-std::log(q < 0 ? p : 1 - p));
  if (r <= 5) {
    r -= 1.6;
    r = polynomial(C, 8, r) / polynomial(D, 8, r);
  } else {
    r -= 5;
    r = polynomial(E, 8, r) / polynomial(F, 8, r);
  }
  return q < 0 ? -r : r;
}

// exp in double precision, to a few units of the last place; 0 below -708.
TT_INLINE Simd<double>::V quick_exp(Simd<double>::V x) {
  typedef Simd<double>::V V;
  typedef Simd<double>::I I;
  const double magic = 6755399441055744.0;  // adding it rounds to an integer, kept in the low bits
  const V low = V{} - 708.0, zero = {};
  const V z = x * 1.44269504088896338700 + magic;
  const V k = z - magic;
  V r = x - k * 6.93147180369123816490e-01;
  r = r - k * 1.90821492927058770002e-10;
  V p = r * (1.0 / 6227020800) + 1.0 / 479001600;  // Taylor's: |r| < 0.35
  p = p * r + 1.0 / 39916800;
  p = p * r + 1.0 / 3628800;
  p = p * r + 1.0 / 362880;
  p = p * r + 1.0 / 40320;
  p = p * r + 1.0 / 5040;
  p = p * r + 1.0 / 720;
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  const I bits = ((I)z - 0x4338000000000000 + 1023) << 52;
  return x < low ? zero : p * (V)bits;  // NaN passes
}

// One column of real values or counts; its raw parameters are `apart` from each other.
inline double column(idx distribution, const double* raw, idx apart, double floor, const Uniforms& u,
                     idx draw) {
  const double p = u(draw);
  switch (distribution) {
    case TT_BERNOULLI:
      return p > 1 / (1 + std::exp(limited(raw[0]))) ? 1 : 0;
    case TT_POISSON:
      return poisson_quantile(bounded_exp(raw[0], 30), p);
    case TT_NEGATIVE_BINOMIAL:
      return negative_binomial_quantile(bounded_exp(raw[0], 30), bounded_exp(raw[apart], 10), p);
    default:
      break;
  }
  const double location = limited(raw[0]), scale = positive(raw[apart], floor);
  if (distribution == TT_NORMAL) return location + scale * normal_quantile(p);
  if (distribution == TT_LAPLACE) {
    return location + scale * (p < 0.5 ? std::log(2 * p) : -std::log(2 * (1 - p)));
  }
  // Student t, by the polar method of Bailey (1994), Math. Comp. 62: one radius and one angle
  const double df = 1 + bounded_exp(raw[2 * apart], 7);
  const double radius = std::sqrt(df * std::expm1(-2 / df * std::log(p)));
  return location + scale * radius * std::cos(6.283185307179586477 * u(draw + 1));
}

inline bool two_uniforms(idx distribution) { return distribution == TT_STUDENT_T; }

// Which component of a mixture column d takes; logits are [components, columns].
inline idx component(const tt_sampler& s, const double* logits, idx d, double u) {
  double most = -INFINITY, sum = 0;
  for (idx k = 0; k < s.components; k++) most = std::max(most, limited(logits[k * s.columns + d]));
  for (idx k = 0; k < s.components; k++) sum += std::exp(limited(logits[k * s.columns + d]) - most);
  double cumulative = 0;
  idx found = 0;
  for (idx k = 0; k < s.components; k++) {
    cumulative += std::exp(limited(logits[k * s.columns + d]) - most);
    found += cumulative < u * sum;
  }
  return found < s.components ? found : s.components - 1;
}

// A row of values from the raw numbers of all members [members, apart]: the first uniform chooses
// the member, if there are several.
__attribute__((noinline)) void draw_values(const tt_sampler& s, const double* raw, idx apart,
                                           const Uniforms& u, double* out) {
  idx first = 0;
  const idx D = s.columns;
  if (s.members > 1) {
    const idx member = idx(std::ceil(u(0) * double(s.members))) - 1;
    raw += (member < 0 ? 0 : member) * apart;
    first = 1;
  }
  const idx each = two_uniforms(s.distribution) ? 2 : 1;
  for (idx d = 0; d < D; d++) {
    if (s.components == 0) {
      out[d] = column(s.distribution, raw + d, D, s.min_scale, u, first + each * d);
    } else {
      const idx k = component(s, raw, d, u(first + d)), KD = s.components * D;
      out[d] = column(s.distribution, raw + KD + k * D + d, KD, s.min_scale, u, first + D + each * d);
    }
  }
}

// Turns logits [0, n) / temperature, padded to whole vectors, into masses whose largest is 1.
TT_INLINE void masses(double* logits, idx n, double temperature) {
  constexpr idx L = lanes<double>;
  for (idx v = n; v < up(n, L); v++) logits[v] = -INFINITY;
  Vec<double> highest = load(logits);
  for (idx v = L; v < n; v += L) {
    const Vec<double> some = load(logits + v);
    highest = some > highest ? some : highest;
  }
  double most = highest[0];
  for (idx i = 1; i < L; i++) most = highest[i] > most ? highest[i] : most;
  const double slope = 1 / temperature;
  for (idx v = 0; v < n; v += L) {
    store(logits + v, quick_exp((load(logits + v) - most) * slope));
  }
}

inline double sum_of(const double* x, idx n) {
  double sum = 0;
  for (idx v = 0; v < n; v++) sum += x[v];
  return sum;
}

// The symbol at which the masses added up, in place, reach the share u of their sum.
TT_INLINE idx reached(double* mass, idx n, double u) {
  constexpr idx L = lanes<double>;
  double sum = 0;
  for (idx v = 0; v < n; v++) mass[v] = sum += mass[v];
  for (idx v = n; v < up(n, L); v++) mass[v] = INFINITY;
  const double threshold = u * sum;  // NaN: the first symbol
  typename Simd<double>::I below = {};
  for (idx v = 0; v < n; v += L) below -= load(mass + v) < threshold;
  idx found = 0;
  for (idx i = 0; i < L; i++) found += below[i];
  return found;
}

struct Likelier {
  const double* mass;
  bool operator()(idx a, idx b) const {  // of a heap whose top comes first
    return mass[a] < mass[b] || (mass[a] == mass[b] && a > b);
  }
};

// Keeps the likeliest symbols, as few as have top_p of the mass together; others get none.
inline void nucleus(double* mass, idx n, double sum, double top_p, idx* order) {
  if (std::isnan(sum)) return;
  for (idx v = 0; v < n; v++) order[v] = v;
  const Likelier less{mass};
  std::make_heap(order, order + n, less);
  double before = 0;
  idx left = n;
  while (left > 0 && before / sum < top_p) {
    std::pop_heap(order, order + left, less);
    before += mass[order[--left]];
  }
  for (idx i = 0; i < left; i++) mass[order[i]] = 0;
}

// A symbol from the logits of all members [members, apart], which are used up; order: scratch [V].
__attribute__((noinline)) idx draw_symbol(const tt_sampler& s, double* raw, idx apart, double u,
                                          idx* order) {
  const idx V = s.symbols;
  masses(raw, V, s.members > 1 ? 1.0 : s.temperature);
  if (s.members > 1) {
    const double first = sum_of(raw, V);
    for (idx v = 0; v < V; v++) raw[v] /= first;
    for (idx m = 1; m < s.members; m++) {
      double* more = raw + m * apart;
      masses(more, V, 1.0);
      const double sum = sum_of(more, V);
      for (idx v = 0; v < V; v++) raw[v] += more[v] / sum;
    }
    if (s.temperature != 1.0) {
      for (idx v = 0; v < V; v++) raw[v] = std::log(raw[v]);
      masses(raw, V, s.temperature);
    }
  }
  if (s.top_p < 1.0) nucleus(raw, V, sum_of(raw, V), s.top_p, order);
  return reached(raw, V, u);
}

}  // namespace
}  // namespace TT_ISA
