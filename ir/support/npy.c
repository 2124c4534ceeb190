/* npy.c: reads and writes numpy's array files.
 *
 * Layout: "\x93NUMPY", version (2 bytes), header length (2 bytes, 4 from version 2 on, little endian), a Python dict
 * with exactly the keys descr, fortran_order and shape, then the elements, row-major. Anything else is refused with a
 * sentence: a file read wrongly would be a wrong result that nobody sees. */
#include "npy.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define MAGIC "\x93NUMPY"
enum { MAGIC_BYTES = 6, ALIGNMENT = 64, CHUNK = 1 << 16 };
#define MAX_FILE_BYTES ((size_t)1 << 34)

static const struct {
    const char *descr;
    int bytes;
} types[] = {[NPY_f4] = {"'<f4'", 4}, [NPY_f8] = {"'<f8'", 8}, [NPY_i4] = {"'<i4'", 4}, [NPY_b1] = {"'|b1'", 1}};

/* ---- the header ---------------------------------------------------------------------------------------------------
 */

typedef struct Scan {
    const char *at, *end;
} Scan;

static bool take(Scan *s, const char *word) {
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n')) s->at++;
    size_t n = strlen(word);
    if ((size_t)(s->end - s->at) < n || memcmp(s->at, word, n) != 0) return false;
    s->at += n;
    return true;
}

static bool take_number(Scan *s, int64_t *n) {
    const char *first = s->at;
    for (*n = 0; s->at < s->end && *s->at >= '0' && *s->at <= '9'; s->at++) {
        if (*n > INT64_MAX / 16) return false;
        *n = *n * 10 + (*s->at - '0');
    }
    return s->at > first;
}

static bool take_shape(Scan *s, Npy *to) {
    if (!take(s, "(")) return false;
    while (!take(s, ")")) {
        if (to->rank == NPY_MAX_RANK || !take_number(s, &to->size[to->rank])) return false;
        to->rank++;
        bool comma = take(s, ",");
        if (!comma && to->rank == 1) return false; /* (3) is a number */
        if (!comma && !take(s, ")")) return false;
        if (!comma) break;
        take(s, ""); /* blanks */
    }
    return true;
}

static const char *take_descr(Scan *s, Npy *to) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (take(s, types[i].descr)) {
            to->type = (NpyType)i;
            return NULL;
        }
    return "its element type is none of <f4, <f8, <i4, |b1";
}

static const char *take_dict(Scan *s, Npy *to) {
    bool descr = false, order = false, shape = false;
    if (!take(s, "{")) return "its header is no dict";
    while (!take(s, "}")) {
        if (!descr && take(s, "'descr':")) {
            const char *wrong = take_descr(s, to);
            if (wrong != NULL) return wrong;
            descr = true;
        } else if (!order && take(s, "'fortran_order':")) {
            if (take(s, "True")) return "it is in Fortran order";
            if (!take(s, "False")) return "its fortran_order is neither True nor False";
            order = true;
        } else if (!shape && take(s, "'shape':")) {
            if (!take_shape(s, to)) return "its shape is malformed";
            shape = true;
        } else {
            return "its header has an unknown or repeated key";
        }
        if (!take(s, ",")) {
            if (!take(s, "}")) return "its header is malformed";
            break;
        }
    }
    take(s, "");
    if (s->at < s->end) return "its header goes on behind the dict";
    return descr && order && shape ? NULL : "its header lacks descr, fortran_order or shape";
}

/* ---- elements -----------------------------------------------------------------------------------------------------
 */

static double element_read(NpyType t, const unsigned char *p) {
    float f;
    double d;
    int32_t i;
    switch (t) {
        case NPY_f4:
            memcpy(&f, p, sizeof f);
            return (double)f;
        case NPY_f8:
            memcpy(&d, p, sizeof d);
            return d;
        case NPY_i4:
            memcpy(&i, p, sizeof i);
            return (double)i;
        case NPY_b1:
            return *p != 0;
    }
    return 0;
}

static void element_write(NpyType t, double x, unsigned char *p) {
    float f = (float)x;
    int32_t i = t == NPY_i4 ? (int32_t)x : 0;
    switch (t) {
        case NPY_f4:
            memcpy(p, &f, sizeof f);
            return;
        case NPY_f8:
            memcpy(p, &x, sizeof x);
            return;
        case NPY_i4:
            memcpy(p, &i, sizeof i);
            return;
        case NPY_b1:
            *p = x != 0;
            return;
    }
}

static const char *parse_elements(Arena *a, const unsigned char *p, size_t left, Npy *to) {
    size_t width = (size_t)types[to->type].bytes, n = 1;
    for (int i = 0; i < to->rank; i++) {
        if (to->size[i] == 0) n = 0;
        if (n > 0 && (size_t)to->size[i] > left / width / n) return "it ends before its last element";
        n *= (size_t)to->size[i];
    }
    if (n * width > left) return "it ends before its last element";
    if (n * width < left) return "it goes on behind its last element";
    to->n = (int64_t)n;
    to->at = NEW_ARRAY(a, double, n);
    for (size_t i = 0; i < n; i++) to->at[i] = element_read(to->type, p + i * width);
    return NULL;
}

const char *npy_parse(Arena *a, const void *bytes, size_t n, Npy *to) {
    const unsigned char *p = bytes;
    *to = (Npy){0};
    if (n < MAGIC_BYTES + 2 || memcmp(p, MAGIC, MAGIC_BYTES) != 0) return "it is no .npy file";
    int version = p[MAGIC_BYTES];
    if (version < 1 || version > 3 || p[MAGIC_BYTES + 1] != 0) return "its format version is none of 1.0, 2.0, 3.0";
    size_t at = MAGIC_BYTES + 2, digits = version == 1 ? 2 : 4, length = 0;
    if (n < at + digits) return "its header is cut off";
    for (size_t i = 0; i < digits; i++) length |= (size_t)p[at + i] << 8 * i;
    at += digits;
    if (length > n - at) return "its header is cut off";
    Scan s = {(const char *)p + at, (const char *)p + at + length};
    const char *wrong = take_dict(&s, to);
    return wrong != NULL ? wrong : parse_elements(a, p + at + length, n - at - length, to);
}

/* ---- files --------------------------------------------------------------------------------------------------------
 */

const char *npy_read(Arena *a, const char *path, Npy *to) {
    FILE *f = fopen(path, "rb");
    if (f == NULL) return arena_printf(a, "%s: %s", path, strerror(errno));
    Arena *scratch = arena_new();
    char *bytes = NULL;
    size_t n = 0, cap = 0, got;
    do { /* grown as it is read: a length asked for beforehand says nothing about a pipe */
        if (cap - n < CHUNK) {
            char *more = arena_alloc(scratch, 2 * cap + CHUNK);
            if (n > 0) memcpy(more, bytes, n);
            bytes = more;
            cap = 2 * cap + CHUNK;
        }
        got = fread(bytes + n, 1, cap - n, f);
        n += got;
    } while (got > 0 && n < MAX_FILE_BYTES);
    bool failed = ferror(f) != 0;
    fclose(f);
    const char *wrong = failed                ? "it cannot be read"
                        : n >= MAX_FILE_BYTES ? "it is larger than 16 GiB"
                                              : npy_parse(a, bytes, n, to);
    arena_free(scratch);
    return wrong == NULL ? NULL : arena_printf(a, "%s: %s", path, wrong);
}

/* The dict, padded so that the elements begin at a multiple of 64 bytes. */
static void write_header(FILE *f, const Npy *from) {
    char dict[32 * NPY_MAX_RANK + 128];
    int n = snprintf(dict, sizeof dict, "{'descr': %s, 'fortran_order': False, 'shape': (", types[from->type].descr);
    for (int i = 0; i < from->rank; i++)
        n += snprintf(dict + n, sizeof dict - (size_t)n, i == 0 ? "%lld," : " %lld,", (long long)from->size[i]);
    if (from->rank > 1) n--;
    n += snprintf(dict + n, sizeof dict - (size_t)n, "), }");
    int length = n + 1, before = MAGIC_BYTES + 4;
    length += (ALIGNMENT - (before + length) % ALIGNMENT) % ALIGNMENT;
    fwrite(MAGIC, 1, MAGIC_BYTES, f);
    fputc(1, f);
    fputc(0, f);
    fputc(length & 0xff, f);
    fputc(length >> 8, f);
    fprintf(f, "%s%*s\n", dict, length - n - 1, "");
}

const char *npy_write(Arena *a, const char *path, const Npy *from) {
    FILE *f = fopen(path, "wb");
    if (f == NULL) return arena_printf(a, "%s: %s", path, strerror(errno));
    write_header(f, from);
    for (int64_t i = 0; i < from->n; i++) {
        unsigned char bytes[8];
        element_write(from->type, from->at[i], bytes);
        fwrite(bytes, 1, (size_t)types[from->type].bytes, f);
    }
    bool failed = ferror(f) != 0;
    if (fclose(f) != 0 || failed) return arena_printf(a, "%s: it cannot be written", path);
    return NULL;
}
