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
  const idx saved = with_cell<float>(kind, [](auto cell) { return idx(decltype(cell)::SAVED); });
  return T * B * up(H, lanes_) * saved;
}

int64_t gates(int64_t kind) { return kind < 0 || kind >= TT_CELLS ? 0 : gates_of(kind); }

}  // namespace

extern const tt_table table;
const tt_table table = {forward, backward, head, step, sample, reserve, gates};

}  // namespace TT_ISA
