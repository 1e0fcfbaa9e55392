// Quantiles of counts: the smallest k whose distribution function reaches u.
//
// Small counts are found by adding up probabilities from 0. Where that would take long or begin
// below the smallest double, the distribution function itself is bisected.
#pragma once

#include <math.h>

#include <cmath>

namespace TT_ISA {
namespace {

constexpr double LEAST_LOG = -600;  // of a probability from which others follow by factors
constexpr int MOST_STEPS = 4096;

// Adds up p(0), p(1), ... with p(k) = p(k - 1) * ratio(k) until u is reached; -1 if it is not.
template <class Ratio>
double walk(double log_first, double mean, double u, const Ratio& ratio) {
  if (!(log_first > LEAST_LOG)) return -1;
  double p = std::exp(log_first), sum = p;
  for (int k = 0; k < MOST_STEPS; k++) {
    if (sum >= u || (p < 0x1p-60 && k > mean)) return k;  // the rest is lost in rounding
    p *= ratio(k + 1.0);
    sum += p;
  }
  return -1;
}

// The smallest whole number in [low, high] at which cdf is at least u.
template <class Cdf>
double bisect(const Cdf& cdf, double u, double low, double high) {
  for (int i = 0; i < 128 && low < high; i++) {  // above 2^53 halving may stop short of the end
    const double middle = std::floor((low + high) / 2);
    if (cdf(middle) < u) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return high;
}

// x - log(1 + x), in which the two nearly cancel for small x.
inline double log_gap(double x) {
  if (std::fabs(x) > 0.03) return x - std::log1p(x);
  double sum = 0;
  for (int n = 12; n >= 2; n--) sum = 1.0 / n - x * sum;
  return x * x * sum;
}

// Q(a, x), the regularised upper incomplete gamma function, for a of some hundreds or more and x
// within a few tenths of it: Temme's uniform expansion (1979, SIAM J. Math. Anal. 10), with the
// series of its coefficients of DiDonato & Morris (1986, ACM TOMS 12).
inline double upper_gamma(double a, double x) {
  static const double C0[] = {
      -0.33333333333333333,       0.083333333333333333,      -0.014814814814814815,
      0.0011574074074074074,      0.0003527336860670194,     -0.00017875514403292181,
      0.39192631785224378e-4,     -0.21854485106799922e-5,   -0.185406221071516e-5,
      0.8296711340953086e-6,      -0.17665952736826079e-6,   0.67078535434014986e-8,
      0.10261809784240308e-7,     -0.43820360184533532e-8,   0.91476995822367902e-9};
  static const double C1[] = {
      -0.0018518518518518519,     -0.0034722222222222222,    0.0026455026455026455,
      -0.00099022633744855967,    0.00020576131687242798,    -0.40187757201646091e-6,
      -0.18098550334489978e-4,    0.76491609160811101e-5,    -0.16120900894563446e-5,
      0.46471278028074343e-8,     0.1378633446915721e-6,     -0.5752545603517705e-7,
      0.11951628599778147e-7};
  static const double C2[] = {
      0.0041335978835978836,      -0.0026813271604938272,    0.00077160493827160494,
      0.20093878600823045e-5,     -0.00010736653226365161,   0.52923448829120125e-4,
      -0.12760635188618728e-4,    0.34235787340961381e-7,    0.13721957309062933e-5,
      -0.6298992138380055e-6,     0.14280614206064242e-6};
  const double excess = (x - a) / a;
  const double phi = log_gap(excess);  // eta^2 / 2
  const double eta = x < a ? -std::sqrt(2 * phi) : std::sqrt(2 * phi);
  double c0 = C0[14], c1 = C1[12], c2 = C2[10];
  for (int i = 13; i >= 0; i--) c0 = c0 * eta + C0[i];
  for (int i = 11; i >= 0; i--) c1 = c1 * eta + C1[i];
  for (int i = 9; i >= 0; i--) c2 = c2 * eta + C2[i];
  const double rest = std::exp(-a * phi) / std::sqrt(6.283185307179586477 * a);
  return 0.5 * std::erfc(eta * std::sqrt(a / 2)) + rest * (c0 + (c1 + c2 / a) / a);
}

inline double poisson_quantile(double rate, double u) {
  if (std::isnan(rate)) return rate;
  const double found = walk(-rate, rate, u, [=](double k) { return rate / k; });
  if (found >= 0) return found;
  const double spread = std::sqrt(rate);
  return bisect([=](double k) { return upper_gamma(k + 1, rate); }, u,
                std::floor(rate - 10 * spread), std::ceil(rate + 10 * spread));
}

inline double log_gamma(double x) {
  int sign;
  return lgamma_r(x, &sign);
}

// log Γ(x) - ((x - 1/2) log x - x + log(2 pi) / 2), for x of 100 or more.
inline double stirling_rest(double x) { return 1 / (12 * x) - 1 / (360 * x * x * x); }

// log of x^a y^b / B(a, b) for x = a / (a + rate), y = 1 - x: what a sum of large numbers that
// cancel would lose is kept.
inline double log_beta_front(double a, double b, double rate) {
  const double rise = b < 100 ? log_gamma(a + b) - log_gamma(b) - a * std::log(a + b)
                              : (b - 0.5) * std::log1p(a / b) - a + stirling_rest(a + b) -
                                    stirling_rest(b);
  const double fall = a < 100 ? a * std::log(a) - log_gamma(a)
                              : a + 0.5 * std::log(a / 6.283185307179586477) - stirling_rest(a);
  return rise + fall + a * std::log1p((b - rate) / (a + rate)) - b * std::log1p(a / rate);
}

// The continued fraction of the incomplete beta function I_x(a, b), y = 1 - x, where excess =
// a - (a + b) x is positive: every second convergent (Didonato & Morris 1992, ACM TOMS 18).
inline double beta_fraction(double a, double b, double x, double y, double excess) {
  const double ratio = b / a, unit = 1 / a + 1, c = excess + 1;
  double p = 1, s = a + 1, top = 0, bottom = 1, top_next = 1, bottom_next = c / unit;
  double found = unit / c;
  for (double n = 1; n < 100000; n++) {
    const double w = n * (b - n) * x, e = a / s, t = n / a;
    const double alpha = p * (p + ratio) * e * e * w * x;
    const double beta = n + w / s + (t + 1) / (unit + t + t) * (c + n * (1 + y));
    p = t + 1;
    s += 2;
    const double new_top = alpha * top + beta * top_next;
    const double new_bottom = alpha * bottom + beta * bottom_next;
    const double before = found;
    found = new_top / new_bottom;
    if (!(std::fabs(found - before) > 1e-15 * found)) break;
    top = top_next / new_bottom;
    bottom = bottom_next / new_bottom;
    top_next = found;
    bottom_next = 1;
  }
  return found;
}

// P(X <= k) of the negative binomial distribution: the incomplete beta function at size / (size + rate).
inline double negative_binomial_cdf(double rate, double size, double k) {
  const double a = size, b = k + 1, x = size / (size + rate), y = rate / (size + rate);
  const double front = std::exp(log_beta_front(a, b, rate)), excess = x * (rate - b);
  if (excess >= 0) return front * beta_fraction(a, b, x, y, excess);
  return 1 - front * beta_fraction(b, a, y, x, -excess);
}

inline double negative_binomial_quantile(double rate, double size, double u) {
  if (std::isnan(rate) || std::isnan(size)) return NAN;
  const double share = rate / (rate + size);
  const double found = walk(-size * std::log1p(rate / size), rate, u,
                            [=](double k) { return (k - 1 + size) / k * share; });
  if (found >= 0) return found;
  const auto cdf = [=](double k) { return negative_binomial_cdf(rate, size, k); };
  double high = std::ceil(rate + 10 * std::sqrt(rate + rate * rate / size) + 10);
  for (int i = 0; i < 64 && cdf(high) < u; i++) high *= 2;
  return bisect(cdf, u, 0, high);
}

}  // namespace
}  // namespace TT_ISA
