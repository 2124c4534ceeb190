/* vec.c: growth of the arrays of vec.h.
 *
 * Capacity doubles, so n pushes copy O(n) elements in all. The old storage stays in the arena until that is reset:
 * pointers into it go stale but never dangle. */
#include "vec.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_CAPACITY = 8 };

void vec_grow(Arena *arena, void **at, int *cap, size_t elem, int n) {
    if (*cap > INT_MAX / 2) {
        fprintf(stderr, "moecc: an array has more than %d elements\n", INT_MAX / 2);
        exit(EXIT_FAILURE);
    }
    int more = *cap == 0 ? FIRST_CAPACITY : 2 * *cap;
    void *fresh = arena_alloc(arena, elem * (size_t)more);
    if (n > 0) memcpy(fresh, *at, elem * (size_t)n);
    *at = fresh;
    *cap = more;
}
