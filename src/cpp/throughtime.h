/* The whole interface of the native library: plain C, no Python and no torch in it. */
#ifndef THROUGHTIME_H
#define THROUGHTIME_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { TT_RNN_TANH, TT_RNN_RELU, TT_RNN_IDENTITY, TT_GRU, TT_LSTM, TT_LI_GRU, TT_CELLS };
enum { TT_FLOAT, TT_DOUBLE };

/* One recurrent layer in one direction over a time-major batch. Pointers are to contiguous arrays
 * of `type` unless said otherwise; optional ones may be null. */
typedef struct {
  int64_t kind, type;
  int64_t low;     /* weights are used as bfloat16 (float only) */
  int64_t T, B, I, H;
  int64_t reverse; /* run from the last step to the first */
  int64_t threads;

  const void* x;   /* [T, B, I], strides x_t and x_b elements, innermost 1 */
  int64_t x_t, x_b;
  const void *h0, *c0;           /* [B, H]; c0 for LSTM only */
  const void *h_restart, *c_restart; /* [B, H] what a reset row starts from, optional: zeros */
  const void *w_ih, *w_hh;       /* [G * H, I], [G * H, H] */
  const void *b_ih, *b_hh;       /* [G * H], optional */
  const uint8_t* reset;          /* [T, B], optional */
  const int64_t* lengths;        /* [B], optional: steps of a row; after them its state stays */

  void *y;                       /* [T, B, H] */
  void *h_end, *c_end;           /* [B, H] */
  void *reserve;                 /* tt_reserve() elements, optional: what backward needs */

  const void *dy;                /* [T, B, H], strides dy_t and dy_b, optional: zeros */
  int64_t dy_t, dy_b;
  const void *dh_end, *dc_end;   /* [B, H], optional: zeros */
  void *dx;                      /* [T, B, I], optional */
  void *dh0, *dc0;               /* [B, H] */
  void *dh_restart, *dc_restart; /* [B, H], optional */
  void *dw_ih, *dw_hh, *db_ih, *db_hh; /* as the weights; biases optional */
} tt_sequence;

/* A linear head over N rows and the summed, weighted nats of the symbols that came. */
typedef struct {
  int64_t type, N, H, V, threads;
  const void* y;         /* [N, H], rows y_n elements apart; dy as well */
  int64_t y_n;
  const void *w, *b;     /* [V, H], [V] */
  const int64_t* target; /* [N], each in 0 ... V - 1 */
  const void* weight;    /* [N] */
  double* total;
  void *dy, *dw, *db;    /* gradients of the total; all or none */
} tt_head;

/* A stack of layers in one direction, as a stream runs it: everything that stays. */
typedef struct {
  int64_t kind, type;
  int64_t layers, I, H;
  int64_t threads;
  const void* const* weights; /* w_ih, w_hh, b_ih, b_hh of each layer; biases may be null */
} tt_layers;

/* A stream: a stack of layers, the state it has reached, and where the next ones go. */
typedef struct {
  tt_layers layers;
  int64_t B;
  const void *h, *c;              /* [layers, B, H] */
  void *y_next, *h_next, *c_next; /* the next places in arrays of [B, H] and [layers, B, H] */
} tt_stream;

/* What the network is shown of the previous element: a code of a symbol, or functions of values. */
enum { TT_SYMBOLS, TT_REALS, TT_BINARIES, TT_COUNTS };
enum {
  TT_CATEGORICAL, TT_BERNOULLI, TT_NORMAL, TT_STUDENT_T, TT_LAPLACE, TT_POISSON,
  TT_NEGATIVE_BINOMIAL
};

/* A model that draws paths, and the paths. `members` networks of one shape are averaged. */
typedef struct {
  int64_t kind, type, layers, members, H; /* H units of each member */
  int64_t encoder, symbols, coded;        /* symbols: 0 for values; coded: numbers of the encoder */
  int64_t covariates, identity;           /* how many more inputs: of each step, of each path */
  int64_t distribution, columns, components;       /* components of a mixture of such distributions, or 0 */
  int64_t parameters;                     /* raw numbers of each member's head */
  int64_t threads, paths;
  double min_scale, temperature, top_p;
  const void* const* weights; /* w_ih, w_hh, b_ih, b_hh of each layer of each member */
  const void* codes;          /* [symbols + 1, coded], the last one before the first symbol */
  const void *head_w, *head_b; /* [members, parameters, H], [members, parameters] */
  const void* initial;        /* [parameters], optional: of the first step instead of the head's */
  void* packed;               /* tt_sampler_size() bytes */

  int64_t begin, end;         /* paths to go on with */
  int64_t step, steps, fresh; /* steps done; steps to do; nothing was drawn before */
  int64_t root;               /* of the random numbers: those of a path follow from its index */
  const void* covariate;      /* [paths, all steps, covariates], paths covariate_path apart */
  int64_t covariate_path;
  const void* identities;     /* [paths, identity] */
  void* previous;             /* [paths] int64 symbols or [paths, columns]; read and written */
  void *h, *c;                /* [layers, paths, members * H]; read and written; c for LSTM */
  void* out;                  /* [paths, steps] int64 or [paths, steps, columns] */
  int64_t out_path;           /* elements from a path to the next */
} tt_sampler;

/* Name of the instruction set in use; `wanted` (or null) forces one. Null: it does not run here. */
const char* tt_instructions(const char* wanted);

/* The OpenMP runtime that the process already has: GOMP_parallel, omp_get_thread_num and
 * omp_get_num_threads. Without it, threads are started for each call that wants them. */
void tt_use_openmp(void* parallel, void* thread_num, void* num_threads);

/* Bytes of a struct by its name here, and gates of a cell: for callers to compare with theirs.
 * 0: there is no such one. */
int64_t tt_sizeof(const char* name);
int64_t tt_gates(int64_t kind);

/* Elements of `reserve`. */
int64_t tt_reserve(int64_t kind, int64_t type, int64_t T, int64_t B, int64_t H);

/* SIGINT and SIGTERM write a line to stderr and end the process with exit code 1, whatever it is
 * doing. */
void tt_leave_on_signals(const char* line, int64_t size);

/* Fills every workspace with NaN before use: for tests. */
void tt_poison(int64_t on);

/* 0, or 1 if there is not enough memory. */
int tt_forward(const tt_sequence* s);
int tt_backward(const tt_sequence* s);
int tt_categorical(const tt_head* s); /* 2: a target is not a symbol */

/* Bytes of `packed`; 0 after packing the weights there; steps: 0, or 1 for lack of memory. */
int64_t tt_sampler_size(const tt_sampler* s);
int tt_sampler_pack(const tt_sampler* s);
int tt_sample(const tt_sampler* s);

/* One step: x [B, I], states [layers, B, H] (c for LSTM, else null), all contiguous. */
int tt_step_layers(const tt_layers* s, const void* x, const void* h, const void* c, void* h_next,
                   void* c_next, int64_t B);

/* One step of a stream, which moves on by one place. */
void tt_stream_step(tt_stream* s, const void* x);

#ifdef __cplusplus
}
#endif
#endif
