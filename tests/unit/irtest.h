/* irtest.h: values and types from short texts, for unit tests of ir and passes. */
#ifndef MOECC_IRTEST_H
#define MOECC_IRTEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ir.h"
#include "support/intern.h"
#include "support/str.h"

/* A module on the mesh x=2, y=4, z=2, and a function to build in. */
typedef struct Fixture {
    Arena *arena;
    Module *m;
    Func *f;
    Builder b;
} Fixture;

static inline int fixture_set_up(void **state) {
    Arena *a = arena_new();
    Fixture *t = NEW(a, Fixture);
    t->arena = a;
    t->m = module_new(a);
    t->m->mesh = (Mesh){3, {intern("x"), intern("y"), intern("z")}, {2, 4, 2}};
    t->f = func_new(t->m, "f", FUNC_entry, (Loc){0});
    t->b = (Builder){t->m, t->f->body, NULL, {0}};
    *state = t;
    return 0;
}

static inline int fixture_tear_down(void **state) {
    arena_free(((Fixture *)*state)->arena);
    return 0;
}

static inline AxisList axes_of(const char *letters) {
    AxisList axes = {0};
    for (; *letters != '\0'; letters++) axes_add(&axes, *letters - 'x');
    return axes;
}

/* "B:8@xy M:4": labels, sizes, mesh axes by letter. */
static inline Type type_of(DType dtype, const char *text) {
    Type t = {.dtype = dtype};
    while (*text != '\0') {
        Dim *d = &t.dim[t.rank++];
        size_t n = strcspn(text, ":");
        d->label = intern_n(text, n);
        char *end;
        d->size = strtoll(text + n + 1, &end, 10);
        for (end += *end == '@'; *end >= 'x' && *end <= 'z'; end++) axes_add(&d->axes, *end - 'x');
        text = end + strspn(end, " ");
    }
    return t;
}

/* The inverse, with "+sum:x" behind partial sums (max, min likewise). */
static inline const char *type_text(Arena *a, const Type *t) {
    static const char *const kind[] = {"", "sum", "max", "min"};
    Str s = str_new(a);
    str_add(&s, "");
    for (int i = 0; i < t->rank; i++) {
        str_addf(&s, "%s%s:%lld", i > 0 ? " " : "", t->dim[i].label, (long long)t->dim[i].size);
        for (int k = 0; k < t->dim[i].axes.n; k++) str_addf(&s, "%s%c", k == 0 ? "@" : "", 'x' + t->dim[i].axes.at[k]);
    }
    for (int k = 0; k < t->partial.n; k++)
        str_addf(&s, "%s%c", k == 0 ? arena_printf(a, "+%s:", kind[t->partial_kind]) : "", 'x' + t->partial.at[k]);
    return s.at;
}

static inline Value *value_of(Fixture *t, DType dtype, const char *text) {
    Type type = type_of(dtype, text);
    return block_arg(t->m, t->f->body, &type, NULL);
}

static inline LabelList labels_of(const char *text) {
    LabelList list = {0};
    while (*text != '\0') {
        size_t n = strcspn(text, " ");
        list.at[list.n++] = intern_n(text, n);
        text += n + strspn(text + n, " ");
    }
    return list;
}

static inline DimList dims_of(const char *text) {
    Type t = type_of(DT_f32, text);
    DimList list = {.n = t.rank};
    for (int i = 0; i < t.rank; i++) {
        list.at[i].label = t.dim[i].label;
        list.at[i].size = t.dim[i].size;
    }
    return list;
}

#endif
