// What the builds for the instruction sets share with module.cpp.
#pragma once

#include <stddef.h>

#include "throughtime.h"

#define TT_MAX_THREADS 64

// Under AddressSanitizer the pieces of a workspace lie apart, on ground that nobody may touch.
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define TT_GAP 256
#else
#define TT_GAP 0
#endif

extern "C" {
// Runs body(context, 0 … threads - 1), on the process's own OpenMP threads where there are some.
void tt_parallel(int threads, void (*body)(void*, int), void* context);
// Runs body(context, i, members) once on each of at most `threads` threads, all at the same time.
void tt_team(int threads, void (*body)(void*, int, int), void* context);
// Whether a team was broken up a moment ago because other work takes the cores; 1: it was, now.
bool tt_crowded(int now);
// The calling thread's workspace, at least this large; null if there is no memory.
void* tt_workspace(size_t bytes);
}

struct tt_table {
  int (*forward)(const tt_sequence*);
  int (*backward)(const tt_sequence*);
  int (*head)(const tt_head*);
  int (*step)(const tt_layers*, const void*, const void*, const void*, void*, void*, int64_t);
  int64_t (*sample)(const tt_sampler*, int64_t);
  int64_t (*reserve)(int64_t kind, int64_t type, int64_t T, int64_t B, int64_t H);
  int64_t (*gates)(int64_t kind);
};

namespace TT_ISA {
namespace {

// Cuts the workspace into aligned pieces; first without memory, to find out how much it takes.
struct Arena {
  char* base = nullptr;
  size_t used = 0;

  bool open(size_t bytes) {
    base = static_cast<char*>(tt_workspace(bytes));
    return base != nullptr;
  }
  template <class T>
  T* take(int64_t count) {
    T* found = base ? reinterpret_cast<T*>(base + used) : nullptr;
    const size_t size = size_t(count) * sizeof(T), whole = (size + 255) / 256 * 256 + TT_GAP;
#if TT_GAP
    if (base) ASAN_POISON_MEMORY_REGION(base + used + size, whole - size);
#endif
    used += whole;
    return found;
  }
};

// Gives a job its workspace, having first asked how much.
template <class Job>
bool carve(Job& job) {
  Arena measure;
  job.carve(measure);
  Arena arena;
  if (!arena.open(measure.used)) return false;
  job.carve(arena);
  return true;
}

template <class Job>
void prepare_part(void* job, int part) { static_cast<Job*>(job)->prepare(part); }
template <class Job>
void run_part(void* job, int part) { static_cast<Job*>(job)->run(part); }
template <class Job>
void reduce_part(void* job, int part) { static_cast<Job*>(job)->reduce(part); }

}  // namespace
}  // namespace TT_ISA
