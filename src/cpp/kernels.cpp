// Compiled once for each instruction set, with TT_ISA defined as its name.
#include "head.h"
#include "run.h"
#include "sample.h"

namespace TT_ISA {
namespace {

int forward(const tt_sequence* s) { return sequence(s, false); }
int backward(const tt_sequence* s) { return sequence(s, true); }

int step(const tt_layers* s, const void* x, const void* h, const void* c, void* h_next, void* c_next,
         int64_t B) {
  if (s->type == TT_DOUBLE) return step_of<double>(*s, x, h, c, h_next, c_next, B);
  return step_of<float>(*s, x, h, c, h_next, c_next, B);
}

int64_t reserve(int64_t kind, int64_t type, int64_t T, int64_t B, int64_t H) {
  const idx lanes_ = type == TT_DOUBLE ? lanes<double> : lanes<float>;
  const idx saved = kind == TT_LSTM ? Lstm<float>::SAVED : kind == TT_GRU ? Gru<float>::SAVED : 0;
  return T * B * up(H, lanes_) * saved;
}

}  // namespace

extern const tt_table table;
const tt_table table = {forward, backward, head, step, sample, reserve};

}  // namespace TT_ISA
