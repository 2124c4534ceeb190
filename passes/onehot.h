/* onehot.h: what the files of `onehot` share; private to passes/.
 *
 * The abstract domain. A *hot* factor is onehot(index, label): 1 where the label's position is the index, else 0; an
 * index outside of 0 .. size is nowhere. A *choice* is weight x hots, its weight and indices being small tensors that
 * lack the hots' labels; labels in `over` are summed. A *form* is a sum of choices: GShard's combine tensor is two of
 * them, or one over an axis K. A *count* is a running count: how many earlier positions have their index here.
 * Forms of bool values have no weights, and choices that are never true together. */
#ifndef MOECC_ONEHOT_H
#define MOECC_ONEHOT_H

#include "ir.h"

enum { MAX_HOTS = 4, MAX_CHOICES = 16, MAX_PLUS = 8 };

typedef struct Hot {
    Label label;
    int64_t size;
    Value *index;
} Hot;

typedef struct Choice {
    Value *weight; /* NULL: one */
    int nhot;
    Hot hot[MAX_HOTS];
    LabelList over;
} Choice;

typedef struct Form {
    int n;
    Choice at[MAX_CHOICES];
} Form;

/* The value at (…, s, e): how many s' before s along `along` have hot.index e (along `further` too, if that is not
 * NULL: of one s at most one has), plus `constant` and the tensors `plus`. */
typedef struct Count {
    Hot hot;
    Label along, further;
    double constant;
    int nplus;
    Value *plus[MAX_PLUS];
} Count;

/* What is known of one value. */
typedef struct HotSlot {
    Value *of;
    Value *to;          /* what replaces it, NULL: nothing */
    const Form *form;   /* NULL: dense */
    const Form *low;    /* NULL: dense; else it has the form's weights where its hots are, and -inf elsewhere */
    const Count *count; /* NULL: it is none */
    Value *placed;      /* a form's dense value, once it was asked for */
    /* Of small tensors that the pass builds or meets: */
    Value *refines;      /* it is equal to that index, or outside of every axis */
    const Count *rank;   /* it is that count, read at the count's own index */
    Value *counted;      /* it says how often that index has each value … */
    Label counted_along; /* … along this axis */
} HotSlot;

/* An `ordinal` of an index along an axis (or two): one for all that ask. */
typedef struct Ordinal {
    Value *index;
    Label along, further;
    int64_t size;
    Inst *inst;
    Value *nth;
} Ordinal;

typedef struct Onehot {
    Builder b;
    Arena *scratch;
    VEC(HotSlot) slot; /* by Value.id */
    VEC(Ordinal) ordinal;
    bool explain, changed;
    const char *why; /* the last attempt failed, for people */
} Onehot;

/* ---- onehot.c ---- */

HotSlot *hot_slot(Onehot *o, Value *v); /* the pointer lasts until the next call */
Value *hot_resolve(Onehot *o, Value *v);
Value *hot_number(Onehot *o, DType t, double value);
bool hot_is_number(const Value *v, double *value); /* a constant, repeated or not */
const Form *form_of(Onehot *o, Value *v);
bool form_is_summed(const Form *f);
/* A label that is summed inside, and one of the same name outside, would be taken for one. */
bool form_shadows(const Form *f, const Type *t);
/* What is known of an instruction's result, f NULL: nothing; and what stands for it from here on. */
void set_form(Onehot *o, const Inst *inst, const Form *f);
void hot_replace(Onehot *o, const Inst *inst, Value *to);

/* ---- onehot_form.c: algebra, and what can be proven ---- */

bool type_has(const Type *t, Label label);
bool list_has(const LabelList *list, Label label);
void list_add(LabelList *list, Label label);
/* Labels of a choice's weight and indices. */
LabelList choice_labels(const Choice *c);
Hot *choice_hot(Choice *c, Label label); /* NULL: none */
/* The choice only where the mask (which lacks the hots' labels) holds. */
void choice_mask(Onehot *o, Choice *c, Value *mask);
void choice_scale(Onehot *o, Choice *c, Value *weight);
/* Where the index is on its axis; NULL: everywhere. */
Value *hot_valid(Onehot *o, const Hot *h);
/* The same, but a condition also where the index has axes that type `beside` lacks: else they would not be summed. */
Value *hot_present(Onehot *o, const Hot *h, const Type *beside);
/* The dense value (or count) read at the choice's hots; NULL and o->why when that cannot be. */
Value *choice_read(Onehot *o, Choice *c, Value *dense);
/* Products; NULL and o->why when the result is none of the domain. */
Form *form_times(Onehot *o, const Form *a, const Form *b);
Form *form_scale(Onehot *o, const Form *f, Value *dense, bool is_bool);
Form *form_copy(Onehot *o, const Form *f);
Form *form_sum(Onehot *o, const Form *a, const Form *b);
/* No two choices are nonzero in the same place, so a function with f(0) = 0 may be applied to each. */
bool form_disjoint(Onehot *o, const Form *f);
/* No two positions along the labels `over`, nor two choices, have the same indices of `labels`. */
bool form_unique(Onehot *o, const Form *f, const LabelList *labels, const LabelList *over);
/* One index for several hots, -1 where one of them is nowhere; *size is the product of theirs. */
Value *hots_flatten(Onehot *o, const Hot *h, int n, int64_t *size);
/* How many before along an axis, and of the same position along a further one, have the same index; and, where *counts
 * is wanted, how many have each. */
Value *hot_ordinal(Onehot *o, const Hot *h, Label along, Label further, Value **counts);
/* The indices along a summed axis are different results of one top_k. */
bool choice_differs(Onehot *o, const Choice *c, Label label);
/* One choice for several, along a new axis; NULL when they have different hots. */
Choice *form_stack(Onehot *o, const Form *f);

/* ---- onehot_fold.c: what folds, exponentials, and a `where` with -inf tell ---- */

void see_reduce(Onehot *o, Inst *inst);
void see_cumsum(Onehot *o, Inst *inst);
void see_exp(Onehot *o, Inst *inst);
void see_low(Onehot *o, Inst *inst, const Form *condition);
void see_low_sum(Onehot *o, Inst *inst);

/* ---- onehot_route.c: tables ---- */

/* The einsum of a form with dense operands, to the labels of `like`: a dense value; or NULL, and *lazy is a form, or
 * NULL with o->why. */
Value *form_contract(Onehot *o, const Form *f, int n, Value *const *dense, const Type *like, Form **lazy);
/* The form as a dense tensor. */
Value *form_place(Onehot *o, const Form *f, const Type *like);

#endif
