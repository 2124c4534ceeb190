/* poly.c: label expressions in normal form.
 *
 * A label is a sum of products of dims ("S+1", "2*Dh", "Dn+Dr"); two are the same axis exactly when their normal forms
 * print the same text, whatever their sizes. A quotient that cannot be taken term by term becomes a symbol of its own,
 * named by its text. Everything is bounded: POLY_TERMS terms of POLY_FACTORS factors, sizes below MAX_DIM.
 *
 * Before: dims with distinct texts. After: interned texts, positive terms first, each sorted. O(terms^2). */
#include <string.h>

#include "lower.h"
#include "support/intern.h"
#include "support/str.h"

static bool times(int64_t x, int64_t y, int64_t *out) {
    return !__builtin_mul_overflow(x, y, out) && *out <= MAX_DIM && *out >= -MAX_DIM;
}

static int term_compare(const Term *x, const Term *y) {
    for (int i = 0; i < x->n && i < y->n; i++) {
        int c = strcmp(x->at[i]->text, y->at[i]->text);
        if (c != 0) return c;
    }
    /* Longer products first, so that a constant comes last: S+1. */
    return y->n - x->n;
}

static bool term_size(const Term *t, int64_t *out) {
    *out = t->k;
    for (int i = 0; i < t->n; i++)
        if (!times(*out, t->at[i]->size, out)) return false;
    return true;
}

static void term_print(Str *s, const Term *t, bool first) {
    int64_t k = t->k < 0 ? -t->k : t->k;
    if (t->k < 0 || !first) str_add(s, t->k < 0 ? "-" : "+");
    if (k != 1 || t->n == 0) str_addf(s, "%lld", (long long)k);
    for (int i = 0; i < t->n; i++) str_addf(s, "%s%s", i > 0 || k != 1 ? "*" : "", t->at[i]->text);
}

/* Adds a term to a sorted sum, merging equal products. */
static bool sum_add(Poly *p, const Term *t) {
    int i = 0;
    while (i < p->n && term_compare(&p->at[i], t) < 0) i++;
    if (i < p->n && term_compare(&p->at[i], t) == 0) {
        if (__builtin_add_overflow(p->at[i].k, t->k, &p->at[i].k)) return false;
        if (p->at[i].k != 0) return true;
        memmove(&p->at[i], &p->at[i + 1], sizeof(Term) * (size_t)(--p->n - i));
        return true;
    }
    if (t->k == 0) return true;
    if (p->n == POLY_TERMS) return false;
    memmove(&p->at[i + 1], &p->at[i], sizeof(Term) * (size_t)(p->n++ - i));
    p->at[i] = *t;
    return true;
}

/* Computes size and text of a finished sum. */
static const Poly *finish(Arena *a, const Poly *p) {
    Poly *out = arena_copy(a, p, sizeof *p);
    out->size = 0;
    Str s = str_new(a);
    for (int sign = 1; sign >= -1; sign -= 2)
        for (int i = 0; i < p->n; i++) {
            int64_t size;
            if ((p->at[i].k > 0) != (sign > 0)) continue;
            if (!term_size(&p->at[i], &size) || __builtin_add_overflow(out->size, size, &out->size)) return NULL;
            term_print(&s, &p->at[i], s.n == 0);
        }
    if (out->size > MAX_DIM || out->size < -MAX_DIM) return NULL;
    if (s.n == 0) str_add(&s, "0");
    if (s.n > AST_MAX_NAME) return NULL;
    out->text = intern(s.at);
    return out;
}

const Poly *poly_const(Arena *a, int64_t k) {
    Poly p = {0};
    Term t = {.k = k};
    return sum_add(&p, &t) ? finish(a, &p) : NULL;
}

const Poly *poly_sym(Arena *a, Label text, int64_t size) {
    Sym *s = NEW(a, Sym);
    *s = (Sym){text, size};
    Poly p = {.n = 1, .at = {{.k = 1, .n = 1, .at = {s}}}};
    return finish(a, &p);
}

const Poly *poly_add(Arena *a, const Poly *x, const Poly *y, int64_t sign) {
    if (x == NULL || y == NULL) return NULL;
    Poly p = *x;
    for (int i = 0; i < y->n; i++) {
        Term t = y->at[i];
        t.k *= sign;
        if (!sum_add(&p, &t)) return NULL;
    }
    return finish(a, &p);
}

static bool term_multiply(const Term *x, const Term *y, Term *out) {
    *out = *x;
    if (!times(x->k, y->k, &out->k)) return false;
    for (int i = 0; i < y->n; i++) {
        if (out->n == POLY_FACTORS) return false;
        int at = out->n++;
        for (; at > 0 && strcmp(out->at[at - 1]->text, y->at[i]->text) > 0; at--) out->at[at] = out->at[at - 1];
        out->at[at] = y->at[i];
    }
    return true;
}

const Poly *poly_mul(Arena *a, const Poly *x, const Poly *y) {
    if (x == NULL || y == NULL) return NULL;
    Poly p = {0};
    for (int i = 0; i < x->n; i++)
        for (int j = 0; j < y->n; j++) {
            Term t;
            if (!term_multiply(&x->at[i], &y->at[j], &t) || !sum_add(&p, &t)) return NULL;
        }
    return finish(a, &p);
}

static bool term_divide(const Term *x, const Term *y, Term *out) {
    if (x->k % y->k != 0) return false;
    *out = (Term){.k = x->k / y->k};
    int j = 0;
    for (int i = 0; i < x->n; i++)
        if (j < y->n && x->at[i]->text == y->at[j]->text)
            j++;
        else
            out->at[out->n++] = x->at[i];
    return j == y->n;
}

static const char *grouped(Arena *a, const Poly *p) {
    return p->n > 1 || strchr(p->text, '/') != NULL ? arena_printf(a, "(%s)", p->text) : p->text;
}

const Poly *poly_div(Arena *a, const Poly *x, const Poly *y) {
    if (x == NULL || y == NULL || y->size == 0) return NULL;
    if (x->text == y->text) return poly_const(a, 1);
    if (poly_is_const(x) && poly_is_const(y)) return poly_const(a, x->size / y->size);
    Poly p = {0};
    bool exact = y->n == 1;
    for (int i = 0; exact && i < x->n; i++) {
        Term t;
        exact = term_divide(&x->at[i], &y->at[0], &t) && sum_add(&p, &t);
    }
    if (exact) return finish(a, &p);
    const char *text =
        arena_printf(a, "%s/%s", grouped(a, x), y->at[0].n > 1 ? arena_printf(a, "(%s)", y->text) : grouped(a, y));
    return strlen(text) > AST_MAX_NAME ? NULL : poly_sym(a, intern(text), x->size / y->size);
}

bool poly_is_const(const Poly *p) {
    return p->n == 0 || (p->n == 1 && p->at[0].n == 0);
}
