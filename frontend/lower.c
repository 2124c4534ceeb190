/* lower.c: the lowering as a whole, and what its files share: errors, instructions, labels of dims.
 *
 * A file becomes a module: its mesh, a function for each entry (several for one that `generate` compiles at several
 * sizes), and one for each `train`. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lower.h"
#include "support/intern.h"
#include "support/str.h"

/* ---- errors ------------------------------------------------------------------------------------------------------ */

enum { CHAIN_NOTES = 4 };

/* The calls that led to where an error is; a function means something only where it is called. */
static void note_chain(const Lower *lo) {
    int n = 0;
    for (const Call *c = lo->call; c != NULL && n < CHAIN_NOTES; c = c->outer)
        if (c->loc.file != 0 && c->fn != NULL && !c->binding)
            diag_note(c->loc, "in `%s`, called here", c->fn->name), n++;
    if (lo->serving && lo->func != NULL)
        diag_note(lo->serving_at, "in `%s`: sizes are those given here", lo->func->name);
}

Val fail(Lower *lo, Loc loc, const char *fmt, ...) {
    char text[1000];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    lo->muted = true;
    for (int i = 0; i < lo->said.n; i++)
        if (lo->said.at[i].loc.file == loc.file && lo->said.at[i].loc.begin == loc.begin &&
            strcmp(lo->said.at[i].text, text) == 0)
            return val_error();
    lo->muted = false;
    lo->said.n++;
    if (lo->said.n > lo->said.cap)
        vec_grow(lo->a, (void **)&lo->said.at, &lo->said.cap, sizeof *lo->said.at, lo->said.n - 1);
    lo->said.at[lo->said.n - 1].loc = loc;
    lo->said.at[lo->said.n - 1].text = arena_strdup(lo->a, text);
    diag_error(loc, "%s", text);
    note_chain(lo);
    return val_error();
}

void note(Lower *lo, Loc loc, const char *fmt, ...) {
    char text[1000];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (!lo->muted) diag_note(loc, "%s", text);
}

const char *suggest(Lower *lo, const char *word, int n, const char *const *candidates) {
    const char *near = str_nearest(word, candidates, n);
    return near == NULL ? "" : arena_printf(lo->a, "; did you mean `%s`?", near);
}

/* ---- instructions ------------------------------------------------------------------------------------------------ */

Inst *emit(Lower *lo, Op op, int n, Value *const *in, const Attrs *at, Block *body, Loc loc) {
    Value **here = NEW_ARRAY(lo->a, Value *, n + 1);
    for (int i = 0; i < n; i++)
        if (in[i] == NULL) return NULL;
    if (lo->func == NULL) return fail(lo, loc, "this is computed when running, and not known here"), NULL;
    if (++lo->instructions > MAX_INSTRUCTIONS)
        return fail(lo, loc, "the program has more than %d operations", MAX_INSTRUCTIONS), NULL;
    for (int i = 0; i < n; i++) here[i] = frame_import(lo, lo->frame, in[i]);
    const char *error = NULL;
    Inst *inst = inst_new(lo->m, op, loc, n, here, at, body, &error);
    if (inst == NULL) return fail(lo, loc, "%s: %s", op_info[op].name, error), NULL;
    inst_insert(lo->b.block, NULL, inst);
    return inst;
}

Value *emit1(Lower *lo, Op op, Value *x, const Attrs *at, Loc loc) {
    Inst *inst = emit(lo, op, 1, &x, at, NULL, loc);
    return inst == NULL ? NULL : inst->out[0];
}

Value *emit2(Lower *lo, Op op, Value *x, Value *y, const Attrs *at, Loc loc) {
    Inst *inst = emit(lo, op, 2, (Value *[]){x, y}, at, NULL, loc);
    return inst == NULL ? NULL : inst->out[0];
}

Value *emit_const(Lower *lo, DType t, double x, Loc loc) {
    Inst *inst = emit(lo, OP_const, 0, NULL, &(Attrs){.dtype = t, .value = x}, NULL, loc);
    return inst == NULL ? NULL : inst->out[0];
}

/* ---- labels ------------------------------------------------------------------------------------------------------ */

static bool text_taken(const Lower *lo, const char *text) {
    for (int i = 0; i < lo->names.n; i++)
        if (lo->names.at[i].text == text) return true;
    return false;
}

/* The text of a dim: its name, or that with a number where another dim has it. */
static const char *dim_text(Lower *lo, const char *name, const void *decl, int64_t size) {
    for (int i = 0; i < lo->names.n; i++)
        if (lo->names.at[i].decl == decl && lo->names.at[i].size == size) return lo->names.at[i].text;
    const char *text = intern(name);
    for (int k = 1; text_taken(lo, text); k++) text = intern_printf("%s_%d", name, k);
    vec_push(lo->a, lo->names, ((DimName){text, decl, size}));
    return text;
}

const Poly *dim_symbol(Lower *lo, const char *name, const void *decl, int64_t size, bool by_size, Loc loc) {
    const Poly *p = poly_sym(lo->a, dim_text(lo, name, decl, by_size ? size : -1), size);
    if (p == NULL) fail(lo, loc, "`%s` is too large", name);
    return p;
}

const Poly *label_poly(Lower *lo, Label text) {
    for (int i = 0; i < lo->labels.n; i++)
        if (lo->labels.at[i]->text == text) return lo->labels.at[i];
    diag_bug("the label %s has no size", text);
}

Label label_of(Lower *lo, const Poly *p) {
    for (int i = 0; i < lo->labels.n; i++)
        if (lo->labels.at[i]->text == p->text) return p->text;
    vec_push(lo->a, lo->labels, p);
    return p->text;
}

/* ---- the mesh ---------------------------------------------------------------------------------------------------- */

static bool mesh_add(Lower *lo, const char *name, int64_t size, Loc loc) {
    Mesh *m = &lo->m->mesh;
    if (mesh_axis(m, name) >= 0) return fail(lo, loc, "the mesh has two axes `%s`", name), false;
    if (m->n == MAX_AXES) return fail(lo, loc, "a mesh has at most %d axes", MAX_AXES), false;
    if (size < 1 || size > MAX_DEVICES || mesh_devices(m) * size > MAX_DEVICES)
        return fail(lo, loc, "the mesh axis `%s` of %lld: a mesh has from 1 to %d devices", name, (long long)size,
                    MAX_DEVICES),
               false;
    m->name[m->n] = name;
    m->size[m->n++] = size;
    return true;
}

static bool is_name(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!(s[i] == '_' || (s[i] >= 'a' && s[i] <= 'z') || (s[i] >= 'A' && s[i] <= 'Z') ||
              (i > 0 && s[i] >= '0' && s[i] <= '9')))
            return false;
    return n > 0 && n <= AST_MAX_NAME;
}

/* --mesh data=2,expert=4 */
static bool mesh_option(Lower *lo, const char *s) {
    while (*s != '\0') {
        size_t n = strcspn(s, "=,");
        char *end = NULL;
        long long size = s[n] == '=' && s[n + 1] >= '0' && s[n + 1] <= '9' ? strtoll(s + n + 1, &end, 10) : 0;
        if (end == NULL || !is_name(s, n) || (*end != ',' && *end != '\0') || (*end == ',' && end[1] == '\0'))
            return fail(lo, (Loc){0}, "--mesh=%.100s: expected axis=size, separated by commas", s), false;
        if (!mesh_add(lo, intern_n(s, n), size, (Loc){0})) return false;
        s = *end == ',' ? end + 1 : end;
    }
    return true;
}

/* The sizes of --mesh, or else of the source. An axis of the source that --mesh leaves out has size 1. */
/* Where the file has a mesh, the option gives sizes to its axes. */
static bool mesh_option_known(Lower *lo, const Ast *mesh) {
    VEC(const char *) names = {0};
    for (int k = 0; k < mesh->n; k++) vec_push(lo->a, names, mesh->at[k]->name);
    for (int i = 0; i < lo->m->mesh.n; i++) {
        bool known = false;
        const char *name = lo->m->mesh.name[i];
        for (int k = 0; k < names.n; k++) known = known || names.at[k] == name;
        if (known) continue;
        fail(lo, (Loc){0}, "--mesh: the mesh of the file has no axis `%s`%s", name,
             suggest(lo, name, names.n, names.at));
        note(lo, mesh->loc, "it is declared here");
        return false;
    }
    return true;
}

static bool mesh_build(Lower *lo) {
    const Ast *mesh = NULL;
    const char *option = lo->opt->mesh;
    for (int i = 0; i < lo->main->file->n; i++) {
        const Ast *node = lo->main->file->at[i];
        if (node->kind == AST_mesh && mesh != NULL) {
            fail(lo, node->loc, "a second mesh");
            note(lo, mesh->loc, "the first is here");
            return false;
        }
        if (node->kind == AST_mesh) mesh = node;
    }
    if (option != NULL && !mesh_option(lo, option)) return false;
    if (option != NULL && mesh != NULL && !mesh_option_known(lo, mesh)) return false;
    for (int i = 0; mesh != NULL && i < mesh->n; i++) {
        const Ast *axis = mesh->at[i];
        int64_t size;
        if (!val_integer(lo, expr_eval(lo, axis->at[0]), "the size of a mesh axis", axis->at[0]->loc, &size))
            return false;
        if (option != NULL && mesh_axis(&lo->m->mesh, axis->name) >= 0) continue;
        if (!mesh_add(lo, axis->name, option != NULL ? 1 : size, axis->loc)) return false;
    }
    return true;
}

/* ---- the module -------------------------------------------------------------------------------------------------- */

static Decl *entry_find(Lower *lo, const Ast *node) {
    Decl *d = source_find(lo->main, node->name);
    if (d != NULL && d->node->kind == AST_fn && d->node->entry) return d;
    VEC(const char *) names = {0};
    for (int i = 0; i < lo->main->decls.n; i++)
        if (lo->main->decls.at[i]->node->entry) vec_push(lo->a, names, lo->main->decls.at[i]->name);
    fail(lo, node->name_loc, "there is no entry `%s`%s", node->name, suggest(lo, node->name, names.n, names.at));
    return NULL;
}

static const Ast *generate_of(const Lower *lo, const char *entry) {
    for (int i = 0; i < lo->main->file->n; i++)
        if (lo->main->file->at[i]->kind == AST_generate && lo->main->file->at[i]->name == entry)
            return lo->main->file->at[i];
    return NULL;
}

/* Entries in the order of the source, then the training steps. */
static void lower_functions(Lower *lo) {
    const Ast *file = lo->main->file, *generate = NULL;
    for (int i = 0; i < file->n && !lo->restart; i++) {
        const Ast *node = file->at[i];
        const Ast *sizes = node->kind == AST_fn && node->entry ? generate_of(lo, node->name) : NULL;
        if (sizes != NULL)
            generate_lower(lo, source_find(lo->main, node->name), sizes);
        else if (node->kind == AST_fn && node->entry)
            entry_lower(lo, source_find(lo->main, node->name), node->name, NULL);
        if (node->kind == AST_generate && entry_find(lo, node) != NULL && generate != NULL)
            fail(lo, node->loc, "a second `generate`");
        if (node->kind == AST_generate) generate = node;
    }
    for (int i = 0; i < file->n && !lo->restart; i++) {
        Decl *d = file->at[i]->kind == AST_train ? entry_find(lo, file->at[i]) : NULL;
        if (d != NULL && module_func(lo->m, d->name, FUNC_train) != NULL)
            fail(lo, file->at[i]->loc, "a second `train` of `%s`", d->name);
        else if (d != NULL)
            entry_lower(lo, d, d->name, file->at[i]);
    }
    if (lo->m->funcs.n == 0 && diag_errors() == 0) fail(lo, file->loc, "the file has no entry: nothing to compile");
}

/* Dims and consts are checked whether they are used or not. */
static bool evaluate_all(Lower *lo) {
    bool ok = true;
    for (int i = 0; i < lo->main->decls.n; i++) {
        Decl *d = lo->main->decls.at[i];
        if (d->node->kind != AST_dim && d->node->kind != AST_const && d->node->kind != AST_dtype) continue;
        ok = !val_is_error(decl_value(lo, d, d->node->name_loc)) && ok;
    }
    return ok;
}

/* Again while a later function finds that a loop must be cut finer than an earlier one did. */
static void lower_module(Lower *lo) {
    int names = lo->names.n;
    do {
        Module *m = lo->m;
        m->vars.n = m->funcs.n = 0;
        m->generate_decode = m->generate_prefill = NULL;
        lo->names.n = names;
        lo->restart = false;
        lower_functions(lo);
    } while (lo->restart && lo->instructions <= MAX_INSTRUCTIONS);
    if (diag_errors() == 0) scope_check(lo);
}

Module *frontend_lower(Arena *a, const char *path, const FrontOptions *opt) {
    int errors = diag_errors();
    Lower lo = {.a = a, .m = module_new(a), .opt = opt};
    Scope root = {.path = "", .pattern = ""};
    lo.m->phase = PHASE_ANNOTATED;
    lo.m->source = arena_strdup(a, path);
    lo.main = source_load(&lo, path);
    if (lo.main == NULL) return NULL;
    Call top = {.unit = lo.main};
    lo.call = &top;
    lo.scope = &root;
    /* The dims of the file have their own names as labels, whatever library dims come first. */
    for (int i = 0; i < lo.main->decls.n; i++) {
        const Decl *d = lo.main->decls.at[i];
        if (d->node->kind == AST_dim) dim_text(&lo, d->name, d->node, -1);
    }
    if (source_defs(&lo, lo.main) && mesh_build(&lo) && evaluate_all(&lo)) lower_module(&lo);
    return diag_errors() == errors ? lo.m : NULL;
}
