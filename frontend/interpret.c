/* interpret.c: `moecc run stage.ir ENTRY --in x=x.npy --out DIR`: any stage of a program can be executed.
 *
 * Arguments are read as the binary reads them: the shape is the argument's global shape, floats narrow, integers must
 * be integers. Results are written whole, whatever their sharding. Cost: the interpreter's (eval.c). */
#include "interpret.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include "support/npy.h"
#include "support/str.h"

static bool complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static bool complain(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fputs("moecc: error: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    return false;
}

static const Func *find_func(const Module *m, const char *name, Arena *a) {
    const Func *f = module_func(m, name, FUNC_entry);
    if (f != NULL) return f;
    const char **names = NEW_ARRAY(a, const char *, m->funcs.n + 1);
    for (int i = 0; i < m->funcs.n; i++) names[i] = m->funcs.at[i]->name;
    const char *near = str_nearest(name, names, m->funcs.n);
    complain("no entry '%s'%s%s%s", name, near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    return NULL;
}

/* The file given for an argument; NULL after a message. */
static const char *file_of(const InterpretOptions *opt, const char *name) {
    size_t n = strlen(name);
    for (int i = 0; i < opt->nin; i++)
        if (strncmp(opt->in[i], name, n) == 0 && opt->in[i][n] == '=') return opt->in[i] + n + 1;
    complain("argument '%s' is missing: --in %s=FILE.npy", name, name);
    return NULL;
}

static bool dtype_fits(DType t, NpyType file) {
    if (t == DT_bool) return file == NPY_b1;
    if (t == DT_i32) return file == NPY_i4;
    return file == NPY_f4 || file == NPY_f8;
}

static bool read_arg(const Module *m, const InterpretOptions *opt, const Value *arg, Tensor *to, Arena *a) {
    const char *name = arg->name != NULL ? arg->name : "";
    const char *path = file_of(opt, name), *error;
    if (path == NULL) return false;
    Npy x;
    if ((error = npy_read(a, path, &x)) != NULL) return complain("%s", error);
    bool fits = x.rank == arg->type.rank && dtype_fits(arg->type.dtype, x.type);
    for (int d = 0; d < x.rank && fits; d++) fits = x.size[d] == arg->type.dim[d].size;
    if (!fits)
        return complain("%s: argument '%s' is %s; the file has another shape or element type", path, name,
                        type_print(&to->type, &m->mesh, a));
    to->at = x.at;
    return true;
}

static bool write_result(const InterpretOptions *opt, const char *name, const Tensor *t, Arena *a) {
    Npy x = {.rank = t->type.rank, .n = type_elements(&t->type), .at = t->at};
    x.type = t->type.dtype == DT_bool ? NPY_b1 : t->type.dtype == DT_i32 ? NPY_i4 : opt->eval.f64 ? NPY_f8 : NPY_f4;
    for (int d = 0; d < x.rank; d++) x.size[d] = t->type.dim[d].size;
    if (strchr(name, '/') != NULL) return complain("result '%s' cannot be a file's name", name);
    const char *error = npy_write(a, arena_printf(a, "%s/%s.npy", opt->out, name), &x);
    return error == NULL || complain("%s", error);
}

bool interpret(const Module *m, const InterpretOptions *opt, Arena *a) {
    const Func *f = find_func(m, opt->entry, a);
    if (f == NULL) return false;
    const Block *b = f->body;
    Tensor *args = NEW_ARRAY(a, Tensor, b->args.n + 1);
    for (int i = 0; i < b->args.n; i++) {
        args[i].type = type_unsharded(&b->args.at[i]->type);
        if (!read_arg(m, opt, b->args.at[i], &args[i], a)) return false;
    }
    if (opt->out == NULL) return complain("run needs --out DIR for the results");
    EvalState state = eval_init(m, a, &opt->eval);
    const char *error = NULL;
    Tensor *results = eval_func(m, f, args, &state, &opt->eval, a, &error);
    if (results == NULL) return complain("%s: %s", opt->entry, error);
    if (mkdir(opt->out, 0777) != 0 && errno != EEXIST) return complain("%s: %s", opt->out, strerror(errno));
    for (int i = 0; i < b->results.n; i++)
        if (!write_result(opt, f->result_names.at[i], &results[i], a)) return false;
    return true;
}
