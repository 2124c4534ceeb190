/* vec.h: growable arrays in an arena.
 *
 *   VEC(Inst *) work = {0};
 *   vec_push(arena, work, inst);
 *   for (int i = 0; i < work.n; i++) use(work.at[i]);
 *
 * Growth copies into fresh arena memory, so pointers to elements do not survive a push. */
#ifndef MOECC_VEC_H
#define MOECC_VEC_H

#include "arena.h"

#define VEC(T)      \
    struct {        \
        T *at;      \
        int n, cap; \
    }

#define vec_push(arena, v, x)                                                                                  \
    ((void)((v).n == (v).cap ? (vec_grow((arena), (void **)&(v).at, &(v).cap, sizeof *(v).at, (v).n), 0) : 0), \
     (v).at[(v).n++] = (x))

void vec_grow(Arena *arena, void **at, int *cap, size_t elem, int n);

#endif
