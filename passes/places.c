/* places.c: positions in several axes at once: what an index table holds.
 *
 * A table from slots to (token, choice) pairs holds one number a slot; dividing gives the token, and where an operand
 * has only some of the axes, only that part of the number is wanted. A few integer operations an entry. */
#include "places.h"

#include "support/intern.h"

Places places_of(const Places *all, const Type *t) {
    Places p = {0};
    for (int i = 0; i < all->labels.n; i++) {
        if (type_find(t, all->labels.at[i]) < 0) continue;
        p.size[p.labels.n] = all->size[i];
        p.labels.at[p.labels.n++] = all->labels.at[i];
    }
    return p;
}

int64_t places_count(const Places *p) {
    int64_t n = 1;
    for (int i = 0; i < p->labels.n; i++) n *= p->size[i];
    return n;
}

static Value *number(Builder *b, int64_t x) {
    return build_const(b, DT_i32, (double)x);
}

static bool has(const Places *p, Label label) {
    for (int i = 0; i < p->labels.n; i++)
        if (p->labels.at[i] == label) return true;
    return false;
}

Value *places_within(Builder *b, Value *at, const Places *all, const Places *some) {
    if (some->labels.n == all->labels.n) return at;
    Value *sum = NULL;
    int64_t below = 1, stride = 1;
    bool major_only = true; /* a division alone keeps -1 what it is */
    for (int i = all->labels.n - 1; i >= 0; i--) {
        int64_t size = all->size[i];
        if (has(some, all->labels.at[i])) {
            Value *x = below > 1 ? build2(b, OP_div, at, number(b, below), NULL) : at;
            if (i > 0) x = build2(b, OP_mod, x, number(b, size), NULL);
            if (stride > 1) x = build2(b, OP_mul, x, number(b, stride), NULL);
            major_only = i == 0 && sum == NULL;
            sum = sum == NULL ? x : build2(b, OP_add, x, sum, NULL);
            stride *= size;
        }
        below *= size;
    }
    if (major_only) return sum;
    return build3(b, OP_where, build2(b, OP_lt, at, number(b, 0), NULL), number(b, -1), sum, NULL);
}

/* The axes `p` next to each other, behind those that the index has too: merging them is then a view. */
static Value *bring_together(Builder *b, Value *x, const Places *p, const Type *index) {
    LabelList order = {0};
    Type t = {.dtype = x->type.dtype, .rank = x->type.rank};
    for (int pass = 0; pass < 3; pass++)
        for (int i = 0; i < x->type.rank; i++) {
            Label label = x->type.dim[i].label;
            bool first = !has(p, label) && type_find(index, label) >= 0;
            if (pass == 1 && i < p->labels.n) order.at[order.n++] = p->labels.at[i];
            if (pass == (first ? 0 : 2) && !has(p, label)) order.at[order.n++] = label;
        }
    for (int i = 0; i < order.n; i++)
        t.dim[i] = (Dim){.label = order.at[i], .size = x->type.dim[type_find(&x->type, order.at[i])].size};
    return build_broadcast(b, x, &t);
}

Value *places_merge(Builder *b, Value *x, const Places *p, const Type *index, Label *label) {
    *label = p->labels.at[0];
    if (p->labels.n == 1) return x;
    x = bring_together(b, x, p, index);
    for (int i = 1; i < p->labels.n; i++) *label = intern_printf("%s*%s", *label, p->labels.at[i]);
    Attrs merge = {.labels = p->labels, .dims = {1, {{*label, places_count(p)}}}};
    return build1(b, OP_relabel, x, &merge);
}
