// The C interface: which build of the kernels runs here, threads, and workspaces.
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#define TT_ISA none
#include "internal.h"
#undef TT_ISA

#define TT_BUILD(name) \
  namespace name {     \
  extern const tt_table table; \
  }
#if defined(__x86_64__) || defined(__i386__)
TT_BUILD(avx512)
TT_BUILD(avx2)
#endif
TT_BUILD(baseline)

namespace {

struct Build {
  const char* name;
  const tt_table* table;
  bool runs;
};

#if defined(__x86_64__) || defined(__i386__)
bool has_avx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
bool has_avx512() {
  __builtin_cpu_init();
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

const Build builds[] = {
#if defined(__x86_64__) || defined(__i386__)
    {"avx512", &avx512::table, has_avx512()},
    {"avx2", &avx2::table, has_avx2()},
#endif
#if defined(__ARM_NEON)
    {"neon", &baseline::table, true},
#else
    {"baseline", &baseline::table, true},
#endif
};

const Build* chosen() {
  for (const Build& build : builds) {
    if (build.runs) return &build;
  }
  return nullptr;
}

const Build* current = chosen();

typedef void (*gomp_parallel)(void (*)(void*), void*, unsigned, unsigned);
typedef int (*thread_number)();
gomp_parallel openmp = nullptr;
thread_number openmp_number = nullptr, openmp_members = nullptr;
bool poisoned = false;
constexpr int64_t REST = 250;  // milliseconds without teams after one was broken up

struct Team {
  void (*body)(void*, int, int);
  void* context;
};

void member(void* data) {
  const Team* team = static_cast<const Team*>(data);
  team->body(team->context, openmp_number(), openmp_members());
}

struct Parts {
  void (*body)(void*, int);
  void* context;
  int parts;
};

// OpenMP may give fewer threads than were asked for.
void some_parts(void* data, int first, int members) {
  const Parts* all = static_cast<const Parts*>(data);
  for (int part = first; part < all->parts; part += members) all->body(all->context, part);
}

struct Workspace {
  void* base = nullptr;
  size_t size = 0;
  ~Workspace() { free(base); }
};
thread_local Workspace workspace;

char last_line[256];
size_t last_size = 0;

void leave(int) {
  if (write(2, last_line, last_size) < 0) _exit(1);  // nobody reads it
  _exit(1);
}

}  // namespace

extern "C" {

void tt_team(int threads, void (*body)(void*, int, int), void* context) {
  if (threads <= 1) {
    body(context, 0, 1);
  } else if (openmp) {
    Team team{body, context};
    openmp(member, &team, unsigned(threads), 0);
  } else {
    std::thread helpers[TT_MAX_THREADS];
    for (int i = 1; i < threads; i++) helpers[i] = std::thread(body, context, i, threads);
    body(context, 0, threads);
    for (int i = 1; i < threads; i++) helpers[i].join();
  }
}

bool tt_crowded(int now) {
  static std::atomic<int64_t> until{0};
  timespec clock;
  clock_gettime(CLOCK_MONOTONIC, &clock);
  const int64_t time = clock.tv_sec * 1000 + clock.tv_nsec / 1000000;
  if (now) until.store(time + REST, std::memory_order_relaxed);
  return time < until.load(std::memory_order_relaxed);
}

void tt_parallel(int threads, void (*body)(void*, int), void* context) {
  Parts parts{body, context, threads};
  tt_team(threads, some_parts, &parts);
}

void* tt_workspace(size_t bytes) {
  if (bytes > workspace.size) {
    free(workspace.base);
    workspace.base = nullptr;
    workspace.size = 0;
    if (posix_memalign(&workspace.base, 256, bytes) != 0) return nullptr;
    workspace.size = bytes;
  }
#if TT_GAP
  ASAN_UNPOISON_MEMORY_REGION(workspace.base, workspace.size);
#endif
  if (poisoned && workspace.base) memset(workspace.base, 0xff, workspace.size);  // NaN
  return workspace.base;
}

const char* tt_instructions(const char* wanted) {
  if (wanted == nullptr) return current ? current->name : nullptr;
  for (const Build& build : builds) {
    if (strcmp(build.name, wanted) == 0 && build.runs) {
      current = &build;
      return build.name;
    }
  }
  return nullptr;
}

void tt_use_openmp(void* parallel, void* thread_num, void* num_threads) {
  openmp_number = reinterpret_cast<thread_number>(thread_num);
  openmp_members = reinterpret_cast<thread_number>(num_threads);
  openmp = reinterpret_cast<gomp_parallel>(parallel);
}

void tt_leave_on_signals(const char* line, int64_t size) {
  last_size = size_t(size) < sizeof(last_line) ? size_t(size) : sizeof(last_line);
  memcpy(last_line, line, last_size);
  struct sigaction action = {};
  action.sa_handler = leave;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

void tt_poison(int64_t on) { poisoned = on != 0; }

int64_t tt_sizeof(const char* name) {
  const struct { const char* name; size_t bytes; } all[] = {
      {"tt_sequence", sizeof(tt_sequence)}, {"tt_head", sizeof(tt_head)},
      {"tt_stream", sizeof(tt_stream)}, {"tt_sampler", sizeof(tt_sampler)}};
  for (const auto& one : all) {
    if (strcmp(one.name, name) == 0) return int64_t(one.bytes);
  }
  return 0;
}
int64_t tt_gates(int64_t kind) { return current->table->gates(kind); }

int64_t tt_reserve(int64_t kind, int64_t type, int64_t T, int64_t B, int64_t H) {
  return current->table->reserve(kind, type, T, B, H);
}

int tt_forward(const tt_sequence* s) { return current->table->forward(s); }
int tt_backward(const tt_sequence* s) { return current->table->backward(s); }
int tt_categorical(const tt_head* s) { return current->table->head(s); }
int64_t tt_sampler_size(const tt_sampler* s) { return current->table->sample(s, 0); }
int tt_sampler_pack(const tt_sampler* s) {
  if (poisoned) memset(s->packed, 0xff, size_t(tt_sampler_size(s)));
  current->table->sample(s, 1);
  return 0;
}
int tt_sample(const tt_sampler* s) { return int(current->table->sample(s, 2)); }
int tt_step_layers(const tt_layers* s, const void* x, const void* h, const void* c, void* h_next,
                   void* c_next, int64_t B) {
  return current->table->step(s, x, h, c, h_next, c_next, B);
}

void tt_stream_step(tt_stream* s, const void* x) {
  tt_step_layers(&s->layers, x, s->h, s->c, s->h_next, s->c_next, s->B);
  const size_t size = s->layers.type == TT_DOUBLE ? 8 : 4;
  const size_t row = size_t(s->B * s->layers.H) * size, all = row * size_t(s->layers.layers);
  memcpy(s->y_next, static_cast<char*>(s->h_next) + all - row, row);
  s->h = s->h_next;
  s->y_next = static_cast<char*>(s->y_next) + row;
  s->h_next = static_cast<char*>(s->h_next) + all;
  if (s->c_next == nullptr) return;
  s->c = s->c_next;
  s->c_next = static_cast<char*>(s->c_next) + all;
}
}
