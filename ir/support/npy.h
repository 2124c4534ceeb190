/* npy.h: numpy's array files, for arguments and results of the interpreter.
 *
 * Read: format 1.0 to 3.0, little-endian f4 f8 i4 and b1, C order, nothing behind the last element. Written: 1.0. */
#ifndef MOECC_NPY_H
#define MOECC_NPY_H

#include <stdint.h>

#include "arena.h"

enum { NPY_MAX_RANK = 32 };

typedef enum NpyType { NPY_f4, NPY_f8, NPY_i4, NPY_b1 } NpyType;

typedef struct Npy {
    NpyType type;
    int rank;
    int64_t size[NPY_MAX_RANK];
    int64_t n; /* elements */
    double *at;
} Npy;

/* NULL, or a sentence in `a`. */
const char *npy_parse(Arena *a, const void *bytes, size_t n, Npy *to);
const char *npy_read(Arena *a, const char *path, Npy *to);
/* Rounds to the element type. */
const char *npy_write(Arena *a, const char *path, const Npy *from);

#endif
