/* places.h: positions in several axes at once; private to passes/. */
#ifndef MOECC_PLACES_H
#define MOECC_PLACES_H

#include "ir.h"

/* Some axes, flattened major first. */
typedef struct Places {
    LabelList labels;
    int64_t size[MAX_RANK];
} Places;

/* Those labels of the list that `t` has, in the list's order. */
Places places_of(const Places *all, const Type *t);
int64_t places_count(const Places *p);
/* `at` holds positions in `all`, -1: none. The same positions in `some` of its axes. */
Value *places_within(Builder *b, Value *at, const Places *all, const Places *some);
/* x with the axes `p` merged into one, whose label is *label, for an index of type `index`; x itself when there is but
 * one. */
Value *places_merge(Builder *b, Value *x, const Places *p, const Type *index, Label *label);

#endif
