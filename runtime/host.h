/* host.h: the main thread's side of the runtime: files, text, commands. Workers are asleep whenever it touches arenas
 * (team_run returns after all of them have finished). */
#ifndef MOE_RUNTIME_HOST_H
#define MOE_RUNTIME_HOST_H

#include "rt.h"

/* ---- files (file.c) ----------------------------------------------------------------------------------------- */

/* A regular file, mapped read-only; an empty one has at NULL. */
typedef struct Mapped {
    const char *at;
    size_t bytes;
} Mapped;

bool file_map(const char *path, Mapped *m, Error *e);
void file_unmap(Mapped *m);

/* A file that appears whole or not at all: written beside its place, synced, renamed. */
typedef struct NewFile {
    FILE *f;
    char *path, *temp;
} NewFile;

bool newfile_open(NewFile *n, const char *path, Error *e);
bool newfile_write(NewFile *n, const void *at, size_t bytes, Error *e);
bool newfile_commit(NewFile *n, Error *e); /* frees; on an error the temporary file is gone */
void newfile_abandon(NewFile *n);
bool dir_sync(const char *path, Error *e); /* a directory's entries are on the disk */

/* ---- npy (npy.c) -------------------------------------------------------------------------------------------- */

/* An array of a .npy file: f32, i32 or bool; f64 is rounded to f32. Row-major. */
typedef struct Npy {
    MoeDType dtype;
    int rank;
    int64_t shape[32];
    int64_t elements;
    void *at; /* malloc'd */
} Npy;

bool npy_read(const char *path, Npy *a, Error *e);
bool npy_write(const char *path, MoeDType t, int rank, const int64_t *shape, const void *at, Error *e);

/* ---- safetensors (safetensors.c) ---------------------------------------------------------------------------- */

enum { ST_MAX_RANK = 32 };

typedef struct StTensor {
    const char *name;
    const char *type; /* "F32" */
    int dtype;        /* MoeDType, -1: a type that the runtime does not compute with */
    int rank;
    int64_t shape[ST_MAX_RANK];
    const char *at; /* in the mapped file; aligned for its type */
    int64_t begin, end;
    int align;
    bool used; /* for the caller */
} StTensor;

typedef struct StFile {
    Mapped map;
    void *header; /* json_t, owns the names */
    int n;
    StTensor *t; /* in the order of their data */
    StTensor **by_name;
} StFile;

bool st_open(const char *path, StFile *f, Error *e);
StTensor *st_find(const StFile *f, const char *name); /* NULL: none */
void st_close(StFile *f);

/* Writing: names and shapes first, then `fill` is called in order to produce each tensor's bytes. Without a path,
 * nothing is written, but `fill` is called in the same order, with no buffer. */
typedef struct StOut {
    char *name;
    MoeDType dtype;
    int rank;
    int64_t shape[MOE_MAX_RANK];
    int64_t bytes;
    void *tag;     /* for fill */
    int64_t index; /* for fill */
} StOut;

typedef void (*StFill)(void *ctx, const StOut *t, void *buffer);
bool st_write(const char *path, int n, StOut *t, StFill fill, void *ctx, Error *e);

/* ---- variables (init.c, weights.c, checkpoint.c) ------------------------------------------------------------ */

enum { VARS_params = 1, VARS_states = 2 };

static inline unsigned var_kind(const MoeVar *v) {
    return v->state ? VARS_states : VARS_params;
}

/* Initial values, each device its own block. */
bool vars_init(Team *t, uint32_t seed, unsigned which);
/* The variables that a file is for: those below a path, by their names there; or all but those below some paths. */
typedef struct Part {
    const char *path; /* NULL: no path, all */
    int nwithout;
    const char *const *without; /* "teacher", or "teacher=FILE" */
    bool lenient;               /* the file may hold more */
    bool mean;                  /* the running means that `ema` keeps, of a file of states */
} Part;

/* Values from a file. Every parameter (state) asked for must be there with its shape, and nothing else; NaN is an
 * error. With `only_if_there`, variables that the file lacks keep their values. */
bool vars_load(Team *t, const char *path, unsigned which, bool only_if_there, const Part *part, Error *e);
bool vars_save(Team *t, const char *path, unsigned which, Error *e);

/* What is on the disk, in 64 bits: to find damage, not malice. */
uint64_t bytes_hash(const char *at, size_t n);

typedef struct Meta {
    int64_t step, steps, seed;
} Meta;

bool checkpoint_probe(const char *dir, Error *e); /* may `dir` be (over)written? asked before training starts */
bool checkpoint_save(Team *t, const char *dir, const Meta *m, Error *e);
bool checkpoint_load(Team *t, const char *dir, Meta *m, Error *e);
/* A file, or a checkpoint's directory (its states too, where it has them). */
bool weights_load(Team *t, const char *path, const Part *part, Error *e);
/* Then, of a checkpoint's directory: each parameter that has a running mean there becomes it. */
bool means_load(Team *t, const char *path, Error *e);

/* ---- text (text.c) ------------------------------------------------------------------------------------------ */

/* Bytes as tokens. The last 5 % are held out. */
typedef struct Text {
    Mapped map;
    int64_t train, held; /* bytes of either part */
} Text;

bool text_open(const char *path, Text *t, Error *e);
void text_close(Text *t);
/* Rows of `width` tokens: drawn by (seed, step, row) from the training part; false when it is shorter than a row. */
bool text_train(const Text *t, uint32_t seed, int64_t step, int64_t rows, int64_t width, int32_t *out);
/* Windows of `width` at stride width - 1 in the held-out part, from number `first`. */
int64_t text_windows(const Text *t, int64_t width);
void text_eval(const Text *t, int64_t first, int64_t rows, int64_t width, int32_t *out);

/* ---- commands (cli.c and one file each) --------------------------------------------------------------------- */

enum { EXIT_user = 1, EXIT_usage = 2, EXIT_stopped = 75, MAX_INPUTS = 64, MAX_METRICS = 64 };

typedef struct Options {
    const char *entry, *data, *save, *resume, *weights, *prompt, *out;
    const char *in[MAX_INPUTS]; /* name=x.npy */
    int nin;
    const char *weights_of[MAX_INPUTS]; /* name=PATH */
    int nweights_of;
    bool train; /* run, bench: a training function */
    bool ema;   /* parameters are their running means */
    int64_t devices, workers, steps, seed, max_tokens, top_k, save_every, stop_at, repeat;
    double seconds, temperature;
} Options;

int cli_main(const MoeProgram *p, int argc, char **argv);

int command_info(const MoeProgram *p, const Options *o);
int command_train(const MoeProgram *p, const Options *o);
int command_eval(const MoeProgram *p, const Options *o);
int command_generate(const MoeProgram *p, const Options *o);
int command_run(const MoeProgram *p, const Options *o);
int command_bench(const MoeProgram *p, const Options *o);

/* The team for these functions, its variables initialized and then read from o->weights if given. NULL and an error. */
Team *command_team(const MoeProgram *p, const Options *o, Error *e);
/* The function called o->entry, of the kind that o->train asks for. NULL and an error that lists those there are. */
const MoeFunc *command_func(const MoeProgram *p, const Options *o, Error *e);
/* Prints "error: …"; the exit code. */
int command_error(const Error *e);
const MoeFunc *func_find(const MoeProgram *p, const char *name, bool train);
const MoeTensor *tensor_find(int n, const MoeTensor *t, const char *name);
char *shape_text(const MoeTensor *t); /* "f32[B:16, S:256]", malloc'd */

/* One call of a function on all devices. `args` and the results' `out` are dense global arrays (NULL: not wanted). */
typedef struct Call {
    const MoeFunc *f;
    const void *const *args;
    uint32_t seed;
    int64_t step, steps;
} Call;

bool call_run(Team *t, const Call *c, Error *e);
void *call_result(Team *t, const MoeFunc *f, int result); /* global, malloc'd */
double call_mean(Team *t, const MoeFunc *f, int result);  /* over all elements */
/* All results as named means, the first one called "loss"; at most MAX_METRICS. */
int call_means(Team *t, const MoeFunc *f, const char **names, double *values);
float *floats_of(const MoeTensor *t, void *values); /* frees values, returns f32 */

/* Set by SIGINT and SIGTERM once signals_watch was called; the second one ends the program. */
void signals_watch(void);
bool signals_seen(void);

/* ---- progress (progress.c) ---------------------------------------------------------------------------------- */

typedef struct Progress {
    bool tty, color;
    double began, last, rate; /* seconds; tokens per second, smoothed */
    int64_t first;            /* step at the start */
} Progress;

double clock_seconds(void);
void progress_begin(Progress *p, int64_t step);
void progress_step(Progress *p, int64_t step, int64_t steps, double seconds_left, int64_t tokens, int n,
                   const char *const *names, const double *values);
void progress_end(Progress *p);

/* ---- sampling (sample.c) ------------------------------------------------------------------------------------ */

/* Index drawn from softmax(logits / temperature) among the top_k largest (0: all); temperature 0: the largest. */
int sample_next(const float *logits, int n, double temperature, int64_t top_k, uint32_t seed, int64_t position);

#endif
