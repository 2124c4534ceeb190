/* source.c: files, what they import, and the values of what they declare.
 *
 * A file sees its own declarations, then those of the files that it imports, in order; an imported file does not see
 * its importer. Library files are part of the compiler. Dims, consts and type names are evaluated when first used, once
 * for each instance (`generate` compiles an entry at several sizes), with cycles refused. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lower.h"
#include "std.h"
#include "support/intern.h"
#include "support/str.h"

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static char *read_failed(const char *path, const char *why) {
    diag_error((Loc){0}, "%s: %s", path, why);
    return NULL;
}

char *frontend_read_file(Arena *a, const char *path, size_t *bytes) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        int e = errno;
        if (fd >= 0) close(fd);
        return read_failed(path, strerror(e));
    }
    const char *why = !S_ISREG(st.st_mode) ? "not a regular file" : st.st_size > AST_MAX_BYTES ? "too large" : NULL;
    size_t n = why == NULL ? (size_t)st.st_size : 0, got = 0;
    char *text = arena_alloc(a, n + 1);
    while (got < n) {
        ssize_t k = read(fd, text + got, n - got);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) break;
        got += (size_t)k;
    }
    close(fd);
    if (why == NULL && got < n) why = "could not be read to its end";
    if (why != NULL) return read_failed(path, why);
    *bytes = n;
    return text;
}

static Ast *parse_text(Arena *a, const char *path, const char *text, size_t bytes) {
    return ast_parse(a, diag_add_file(path, text, bytes), text, bytes);
}

Ast *frontend_parse(Arena *a, const char *path) {
    size_t bytes;
    const char *text = frontend_read_file(a, path, &bytes);
    return text == NULL ? NULL : parse_text(a, arena_strdup(a, path), text, bytes);
}

/* ---- declarations ------------------------------------------------------------------------------------------------ */

static Decl *own(const Unit *u, const char *name) {
    for (int i = 0; i < u->decls.n; i++)
        if (u->decls.at[i]->name == name) return u->decls.at[i];
    return NULL;
}

/* alias.name; further dots lead on into what that file imports so. */
static Decl *find_dotted(const Unit *u, const char *name, const char *dot) {
    for (int i = 0; i < u->aliases.n; i++) {
        const char *alias = u->aliases.at[i].name;
        if (strncmp(alias, name, (size_t)(dot - name)) != 0 || alias[dot - name] != '\0') continue;
        const char *rest = intern(dot + 1), *next = strchr(rest, '.');
        return next == NULL ? own(u->aliases.at[i].unit, rest) : find_dotted(u->aliases.at[i].unit, rest, next);
    }
    return NULL;
}

Decl *source_find(const Unit *u, const char *name) {
    const char *dot = strchr(name, '.');
    if (dot != NULL) return find_dotted(u, name, dot);
    Decl *d = own(u, name);
    for (int i = 0; d == NULL && i < u->imports.n; i++) d = own(u->imports.at[i], name);
    return d;
}

static bool declare(Lower *lo, Unit *u, const Ast *node) {
    Decl *before = own(u, node->name);
    if (before != NULL) {
        fail(lo, node->name_loc, "`%s` is declared twice", node->name);
        note(lo, before->node->name_loc, "first here");
        return false;
    }
    if (node->kind == AST_fn && builtin_find(node->name) != NULL) {
        fail(lo, node->name_loc, "`%s` is a built-in function", node->name);
        return false;
    }
    if (u->decls.n == MAX_NAMES) {
        fail(lo, node->name_loc, "a file declares at most %d names", MAX_NAMES);
        return false;
    }
    Decl *d = NEW(lo->a, Decl);
    *d = (Decl){.name = node->name, .node = node, .unit = u};
    vec_push(lo->a, u->decls, d);
    return true;
}

/* ---- imports ----------------------------------------------------------------------------------------------------- */

/* Reads `u`, which has its name and path. */
static bool unit_read(Lower *lo, Unit *u, const char *text, size_t bytes);
static Unit *unit_load(Lower *lo, const char *path, const char *name, const char *text, size_t bytes);

static const StdFile *std_find(const char *name) {
    for (int i = 0; i < std_nfiles; i++)
        if (strcmp(std_files[i].name, name) == 0) return &std_files[i];
    return NULL;
}

static Unit *library_load(Lower *lo, const StdFile *f) {
    const char *path = intern_printf("std/%s.moe", f->name);
    return unit_load(lo, path, path, f->text, f->bytes);
}

static Unit *import_library(Lower *lo, const Ast *module) {
    const StdFile *f = std_find(module->name);
    if (f != NULL) return library_load(lo, f);
    const char *names[64];
    int n = 0;
    for (; n < std_nfiles && n < 64; n++) names[n] = std_files[n].name;
    fail(lo, module->loc, "there is no library `%s`%s", module->name, suggest(lo, module->name, n, names));
    return NULL;
}

/* The path of a file named in `from`: beside it. */
static const char *import_path(Lower *lo, const Unit *from, const Ast *module) {
    const char *slash = strrchr(from->path, '/');
    int n = slash == NULL ? 0 : (int)(slash - from->path) + 1;
    if (lo->opt->import_dir != NULL) return arena_printf(lo->a, "%s/%s", lo->opt->import_dir, module->name);
    return arena_printf(lo->a, "%.*s%s", module->name[0] == '/' ? 0 : n, from->path, module->name);
}

static Unit *import_file(Lower *lo, const Unit *from, const Ast *module) {
    const char *path = import_path(lo, from, module);
    size_t bytes;
    const char *text = frontend_read_file(lo->a, path, &bytes);
    if (text != NULL) return unit_load(lo, path, intern(path), text, bytes);
    note(lo, module->loc, "imported here");
    return NULL;
}

/* `(B: B)`: the importer's values of dims and consts of the file. */
static bool import_bind(Lower *lo, Unit *u, const Ast *node) {
    for (int i = IMPORT_BINDINGS; i < node->n; i++) {
        const Ast *binding = node->at[i];
        Decl *d = own(u, binding->name);
        AstKind kind = d == NULL ? AST_file : d->node->kind;
        if (kind != AST_dim && kind != AST_const) {
            fail(lo, binding->loc, "%s declares no dim or const `%s`", u->path, binding->name);
            return false;
        }
        if (d->bound != NULL) return fail(lo, binding->loc, "`%s` is given twice", binding->name), false;
        d->bound = binding->at[0];
    }
    return true;
}

/* A file under a name of its own is read for this import alone: its dims may have other values than elsewhere. */
static Unit *import_alone(Lower *lo, Unit *from, const Ast *node) {
    const Ast *module = node->at[IMPORT_MODULE];
    int alone = 0;
    for (int i = 0; i < lo->units.n; i++) alone += lo->units.at[i]->alias != NULL;
    if (alone == MAX_ALIASES) {
        fail(lo, node->loc, "more than %d files are imported under names of their own", MAX_ALIASES);
        return NULL;
    }
    Unit *u = NEW(lo->a, Unit);
    size_t bytes;
    u->path = import_path(lo, from, module);
    u->name = intern_printf("%s as %s in %s", u->path, node->name, from->name);
    u->importer = from;
    u->alias = node->name;
    u->frozen = node->frozen;
    vec_push(lo->a, lo->units, u);
    const char *text = frontend_read_file(lo->a, u->path, &bytes);
    if (text == NULL) return note(lo, module->loc, "imported here"), NULL;
    return unit_read(lo, u, text, bytes) && import_bind(lo, u, node) ? u : NULL;
}

static bool import_named(Lower *lo, Unit *u, const Ast *node) {
    const Ast *module = node->at[IMPORT_MODULE];
    for (int i = 0; i < u->aliases.n; i++)
        if (u->aliases.at[i].name == node->name)
            return fail(lo, node->loc, "a second import is called `%s`", node->name), false;
    if (module->kind != AST_str && (node->frozen || node->n > IMPORT_BINDINGS))
        return fail(lo, node->loc, "a library has no parameters and dims of its own: import %s as %s", module->name,
                    node->name),
               false;
    Unit *other = module->kind == AST_str ? import_alone(lo, u, node) : import_library(lo, module);
    if (other == NULL) return false;
    vec_push(lo->a, u->aliases, ((Alias){node->name, other}));
    return true;
}

static bool import(Lower *lo, Unit *u, const Ast *node) {
    const Ast *module = node->at[IMPORT_MODULE];
    if (node->name != NULL) return import_named(lo, u, node);
    if (node->frozen || node->n > IMPORT_BINDINGS) {
        fail(lo, node->loc, "a file that is frozen or given dims has a name of its own: import \"file.moe\" as name");
        return false;
    }
    Unit *other = module->kind == AST_str ? import_file(lo, u, module) : import_library(lo, module);
    if (other == NULL) return false;
    vec_push(lo->a, u->imports, other);
    return true;
}

/* ---- a file ------------------------------------------------------------------------------------------------------ */

static Unit *unit_load(Lower *lo, const char *path, const char *name, const char *text, size_t bytes) {
    for (int i = 0; i < lo->units.n; i++)
        if (lo->units.at[i]->name == name) return lo->units.at[i];
    Unit *u = NEW(lo->a, Unit);
    u->name = name;
    u->path = path;
    /* Registered before its imports are loaded, so that files may import each other. */
    vec_push(lo->a, lo->units, u);
    return unit_read(lo, u, text, bytes) ? u : NULL;
}

static bool unit_read(Lower *lo, Unit *u, const char *text, size_t bytes) {
    bool ok = true;
    u->file = parse_text(lo->a, u->path, text, bytes);
    if (u->file == NULL) return false;
    for (int i = 0; i < u->file->n; i++) {
        const Ast *node = u->file->at[i];
        switch (node->kind) {
            case AST_import:
                ok &= import(lo, u, node);
                break;
            case AST_dim:
            case AST_const:
            case AST_dtype:
            case AST_axis:
            case AST_fn:
            case AST_param:
            case AST_state:
                ok &= declare(lo, u, node);
                if (u->decls.n == MAX_NAMES && !ok) return false;
                break;
            default:
                break;
        }
    }
    return ok;
}

Unit *source_load(Lower *lo, const char *path) {
    size_t bytes;
    const char *text = frontend_read_file(lo->a, path, &bytes);
    return text == NULL ? NULL : unit_load(lo, arena_strdup(lo->a, path), intern(path), text, bytes);
}

Unit *source_train_unit(Lower *lo) {
    const StdFile *f = std_find("optim");
    Unit *optim = f == NULL ? NULL : library_load(lo, f), *u = NEW(lo->a, Unit);
    if (optim == NULL) return NULL;
    u->name = u->path = "train";
    vec_push(lo->a, u->imports, lo->main);
    for (int i = 0; i < lo->main->imports.n; i++) vec_push(lo->a, u->imports, lo->main->imports.at[i]);
    vec_push(lo->a, u->imports, optim);
    return u;
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

static Val override_value(Lower *lo, const Decl *d) {
    const char *s = d->override;
    if (strcmp(s, "true") == 0 || strcmp(s, "false") == 0) return val_bool(s[0] == 't');
    if (strcmp(s, "none") == 0) return val_none();
    char *end;
    errno = 0;
    double x = strtod(s, &end);
    if (*s == '\0' || *end != '\0' || errno != 0 || isspace((unsigned char)*s))
        return fail(lo, (Loc){0}, "-D %s=%s: not a number, true, false or none", d->name, s);
    bool integer = strpbrk(s, ".eExXnN") == NULL && x >= -(double)MAX_DIM && x <= (double)MAX_DIM;
    return integer ? val_int(lo, (int64_t)x) : val_num(x);
}

/* Whether a dim can have this value: a positive integer, the same in each iteration. */
static Val dim_checked(Lower *lo, Decl *d, Val v) {
    Loc loc = d->override != NULL ? (Loc){0} : d->node->at[DEF_VALUE]->loc;
    int64_t size;
    if (!val_integer(lo, v, arena_printf(lo->a, "the dim `%s`", d->name), loc, &size)) return val_error();
    if (size < 1) return fail(lo, loc, "the dim `%s` is %lld; a size is at least 1", d->name, (long long)size);
    const Poly *p = dim_symbol(lo, d->name, d->node, size, false, loc);
    return p == NULL ? val_error() : val_poly(p);
}

static Val dtype_value(Lower *lo, Decl *d) {
    const char *name = d->override != NULL ? d->override : d->node->at[0]->name;
    for (int t = 0; t < DT_COUNT; t++)
        if (strcmp(dtype_name((DType)t), name) == 0) return (Val){.kind = VAL_dtype, .dtype = (DType)t};
    if (d->override != NULL) return fail(lo, (Loc){0}, "-D %s=%s: no element type", d->name, name);
    Decl *other = source_find(d->unit, d->node->at[0]->name);
    if (other != NULL && other->node->kind == AST_dtype) return decl_value(lo, other, d->node->loc);
    return fail(lo, d->node->at[0]->loc, "`%s` is no element type: f32, bf16, f16, i32, bool", name);
}

/* The value that the importer gives: a dim that it names is then one label in both files. */
static Val bound_value(Lower *lo, Decl *d) {
    Call *outer = lo->call, top = {.unit = d->unit->importer};
    lo->call = &top;
    Val v = expr_eval(lo, d->bound);
    lo->call = outer;
    if (v.kind == VAL_tensor || v.kind == VAL_tuple)
        return fail(lo, d->bound->loc, "`%s` is known when compiling, this is %s", d->name, val_describe(lo, v));
    if (d->node->kind == AST_const || val_is_error(v)) return v;
    const Poly *p = val_label(lo, v, d->bound->loc);
    if (p == NULL || poly_is_const(p)) return p == NULL ? val_error() : dim_checked(lo, d, v);
    return val_poly(p);
}

static Val compute(Lower *lo, Decl *d) {
    if (d->node->kind == AST_dtype) return dtype_value(lo, d);
    if (d->size != NULL) return val_poly(d->size);
    if (d->bound != NULL && d->override == NULL) return bound_value(lo, d);
    Val v = d->override != NULL ? override_value(lo, d) : expr_eval(lo, d->node->at[DEF_VALUE]);
    if (val_is_error(v)) return v;
    if (d->node->kind == AST_dim) return dim_checked(lo, d, v);
    if (v.kind == VAL_tensor || v.kind == VAL_tuple)
        return fail(lo, d->node->at[DEF_VALUE]->loc, "a const is known when compiling, this is %s",
                    val_describe(lo, v));
    return v;
}

Val decl_value(Lower *lo, Decl *d, Loc use) {
    if (d->state == DECL_done) return d->val;
    if (d->state == DECL_open) return fail(lo, use, "`%s` is defined by itself", d->name);
    d->state = DECL_open;
    Call *outer = lo->call;
    Call top = {.unit = d->unit};
    lo->call = &top;
    d->val = compute(lo, d);
    lo->call = outer;
    d->state = DECL_done;
    return d->val;
}

void source_reset(Lower *lo) {
    for (int i = 0; i < lo->units.n; i++)
        for (int j = 0; j < lo->units.at[i]->decls.n; j++) lo->units.at[i]->decls.at[j]->state = DECL_fresh;
    lo->labels.n = 0;
}

/* Gives the -D values to their declarations. */
bool source_defs(Lower *lo, Unit *main) {
    bool ok = true;
    for (int i = 0; i < lo->opt->ndefs; i++) {
        const char *def = lo->opt->defs[i], *eq = strchr(def, '=');
        size_t n = eq == NULL ? strlen(def) : (size_t)(eq - def);
        const char *name = n > AST_MAX_NAME ? "" : intern_n(def, n);
        Decl *d = strchr(name, '.') == NULL ? own(main, name) : source_find(main, name);
        AstKind k = d == NULL ? AST_file : d->node->kind;
        if (k == AST_dim || k == AST_const || k == AST_dtype) {
            d->override = eq == NULL ? "" : arena_strdup(lo->a, eq + 1);
            continue;
        }
        VEC(const char *) names = {0};
        for (int j = 0; j < main->decls.n; j++) vec_push(lo->a, names, main->decls.at[j]->name);
        const char *word = arena_printf(lo->a, "%.*s", n > AST_MAX_NAME ? AST_MAX_NAME : (int)n, def);
        fail(lo, (Loc){0}, "-D %s: the file declares no such dim, const or dtype%s", word,
             suggest(lo, word, names.n, names.at));
        ok = false;
    }
    return ok;
}
