/* npy.c: numpy's array files, format versions 1.0 to 3.0, strictly.
 *
 * Layout: "\x93NUMPY", version, header length (2 or 4 bytes, little endian), a Python dict literal with exactly the
 * keys descr, fortran_order and shape, then the elements. Accepted: little-endian f4, i4, f8 (rounded to f32), b1; C
 * order; the file ends with the last element. Everything else is an error that names what it found. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"

typedef struct Scan {
    const char *at, *end;
} Scan;

static void blanks(Scan *s) {
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n')) s->at++;
}

static bool take(Scan *s, const char *word) {
    blanks(s);
    size_t n = strlen(word);
    if ((size_t)(s->end - s->at) < n || memcmp(s->at, word, n) != 0) return false;
    s->at += n;
    return true;
}

static bool scan_shape(Scan *s, Npy *a) {
    if (!take(s, "(")) return false;
    while (!take(s, ")")) {
        int64_t n = 0;
        const char *first = s->at;
        for (; s->at < s->end && *s->at >= '0' && *s->at <= '9'; s->at++) {
            if (n > INT64_MAX / 16) return false;
            n = n * 10 + (*s->at - '0');
        }
        if (s->at == first || a->rank == 32) return false;
        a->shape[a->rank++] = n;
        if (!take(s, ",") && a->rank == 1) return false; /* (3) is a number, not a shape */
    }
    return true;
}

static const struct {
    const char *descr;
    MoeDType dtype;
    int bytes;
} types[] = {{"'<f4'", MOE_f32, 4}, {"'<i4'", MOE_i32, 4}, {"'|b1'", MOE_bool, 1}, {"'<f8'", MOE_f32, 8}};

/* Reads the dict; *type is an index of `types`, -1 while unknown. */
static bool scan_header(Scan *s, Npy *a, int *type, const char *path, Error *e) {
    bool order = false, shape = false;
    *type = -1;
    if (!take(s, "{")) return error_set(e, "%s: npy header: not a dict", path);
    while (!take(s, "}")) {
        if (*type < 0 && take(s, "'descr':")) {
            for (int i = 0; i < 4 && *type < 0; i++)
                if (take(s, types[i].descr)) *type = i;
            if (*type < 0)
                return error_set(e, "%s: npy header: element type %.12s; expected '<f4', '<i4', '|b1' or '<f8'", path,
                                 s->at);
        } else if (!order && take(s, "'fortran_order':")) {
            if (take(s, "True")) return error_set(e, "%s: npy array is in Fortran order", path);
            order = take(s, "False");
            if (!order) return error_set(e, "%s: npy header: bad fortran_order", path);
        } else if (!shape && take(s, "'shape':")) {
            shape = scan_shape(s, a);
            if (!shape) return error_set(e, "%s: npy header: bad shape", path);
        } else {
            return error_set(e, "%s: npy header: unexpected or repeated key", path);
        }
        blanks(s);
        if (!take(s, ",") && (s->at == s->end || *s->at != '}'))
            return error_set(e, "%s: npy header: not a dict", path);
    }
    blanks(s);
    if (*type < 0 || !order || !shape) return error_set(e, "%s: npy header: a key is missing", path);
    return s->at == s->end || error_set(e, "%s: npy header: text after the dict", path);
}

/* The header lies in a copy that ends with a zero byte, so that messages may quote it. */
static bool npy_parse(const Mapped *m, const char *path, Npy *a, Error *e) {
    const unsigned char *at = (const unsigned char *)m->at;
    if (m->bytes < 10 || memcmp(at, "\x93NUMPY", 6) != 0) return error_set(e, "%s: not a .npy file", path);
    if (at[6] < 1 || at[6] > 3 || at[7] != 0)
        return error_set(e, "%s: npy format %d.%d is not supported", path, at[6], at[7]);
    size_t wide = at[6] == 1 ? 2 : 4, first = 8 + wide;
    if (m->bytes < first) return error_set(e, "%s: npy header is truncated", path);
    size_t n = (size_t)at[8] | (size_t)at[9] << 8;
    if (wide == 4) n |= (size_t)at[10] << 16 | (size_t)at[11] << 24;
    if (n > m->bytes - first) return error_set(e, "%s: npy header is truncated", path);
    if (n > 1 << 20) return error_set(e, "%s: npy header of %zu bytes", path, n);
    char *text = xformat("%.*s", (int)n, m->at + first);
    Scan s = {text, text + strlen(text)};
    int type;
    bool ok = strlen(text) == n || error_set(e, "%s: npy header: not text", path);
    ok = ok && scan_header(&s, a, &type, path, e);
    free(text);
    if (!ok) return false;
    a->elements = 1;
    for (int i = 0; i < a->rank; i++)
        if (__builtin_mul_overflow(a->elements, a->shape[i], &a->elements) || a->elements > INT64_MAX / 16)
            return error_set(e, "%s: npy shape is too large", path);
    size_t bytes = (size_t)a->elements * (size_t)types[type].bytes, have = m->bytes - first - n;
    if (bytes != have)
        return error_set(e, "%s: npy data has %zu bytes; its shape and type need %zu", path, have, bytes);
    const char *data = m->at + first + n;
    a->dtype = types[type].dtype;
    a->at = xmalloc((size_t)a->elements * (size_t)dtype_size(a->dtype));
    if (types[type].bytes != 8) return memcpy(a->at, data, bytes), true;
    for (int64_t i = 0; i < a->elements; i++) {
        double x;
        memcpy(&x, data + i * 8, 8);
        ((float *)a->at)[i] = (float)x;
    }
    return true;
}

static bool bools_check(const Npy *a, const char *path, Error *e) {
    for (int64_t i = 0; a->dtype == MOE_bool && i < a->elements; i++)
        if (((const uint8_t *)a->at)[i] > 1) return error_set(e, "%s: npy bool that is neither 0 nor 1", path);
    return true;
}

bool npy_read(const char *path, Npy *a, Error *e) {
    Mapped m;
    *a = (Npy){0};
    if (!file_map(path, &m, e)) return false;
    bool ok = npy_parse(&m, path, a, e) && bools_check(a, path, e);
    file_unmap(&m);
    if (!ok) {
        free(a->at);
        a->at = NULL;
    }
    return ok;
}

bool npy_write(const char *path, MoeDType t, int rank, const int64_t *shape, const void *at, Error *e) {
    const char *descr = t == MOE_i32 ? "<i4" : t == MOE_bool ? "|b1" : "<f4";
    char dict[1024];
    size_t n = (size_t)snprintf(dict, sizeof dict, "{'descr': '%s', 'fortran_order': False, 'shape': (", descr);
    int64_t elements = 1;
    for (int i = 0; i < rank; i++) {
        elements *= shape[i];
        n += (size_t)snprintf(dict + n, sizeof dict - n, "%lld,%s", (long long)shape[i], i + 1 < rank ? " " : "");
    }
    n += (size_t)snprintf(dict + n, sizeof dict - n, "), }");
    while ((10 + n + 1) % 64) dict[n++] = ' ';
    dict[n++] = '\n';
    unsigned char head[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (unsigned char)(n & 255), (unsigned char)(n >> 8)};
    NewFile f;
    if (!newfile_open(&f, path, e)) return false;
    bool ok = newfile_write(&f, head, 10, e) && newfile_write(&f, dict, n, e) &&
              newfile_write(&f, at, (size_t)elements * (size_t)(t == MOE_bool ? 1 : 4), e);
    if (ok) return newfile_commit(&f, e);
    newfile_abandon(&f);
    return false;
}
