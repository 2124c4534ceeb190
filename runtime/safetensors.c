/* safetensors.c: the tensor file format, read strictly and written whole.
 *
 * Layout: u64 header length (little endian), a JSON object {name: {dtype, shape, data_offsets}}, the data. The file is
 * mapped, nothing is copied. A file is accepted only if there is one way to read it: besides the reference's checks
 * (dtype known; size = shape x dtype; tensors cover the data without hole or overlap; the file ends with the last one)
 * we refuse what it lets pass: duplicate keys, anything before `{`, unknown fields, `__metadata__` that is not
 * string -> string, names that are empty or look like paths upwards, data not aligned for its type, and shapes that
 * overflow in any order of multiplication. Every refusal says what and where.
 *
 * Numbers in a header are unsigned integers: a scan before the JSON parser refuses all other tokens outside of strings,
 * so signs, fractions, exponents and literals never reach it. O(header + n log n). */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"

enum { MAX_HEADER = 100000000 };

static const struct {
    const char *name;
    int bits, dtype; /* MoeDType, -1: known, not computed with */
} types[] = {
    {"F32", 32, MOE_f32}, {"BF16", 16, MOE_bf16}, {"F16", 16, MOE_f16},   {"I32", 32, MOE_i32},   {"BOOL", 8, MOE_bool},
    {"F64", 64, -1},      {"I64", 64, -1},        {"U64", 64, -1},        {"U32", 32, -1},        {"I16", 16, -1},
    {"U16", 16, -1},      {"I8", 8, -1},          {"U8", 8, -1},          {"C64", 64, -1},        {"F8_E4M3", 8, -1},
    {"F8_E5M2", 8, -1},   {"F8_E8M0", 8, -1},     {"F8_E4M3FNUZ", 8, -1}, {"F8_E5M2FNUZ", 8, -1}, {"F6_E2M3", 6, -1},
    {"F6_E3M2", 6, -1},   {"F4", 4, -1},
};

/* ---- reading ------------------------------------------------------------------------------------------------ */

static bool tokens_check(const char *path, const char *at, size_t n, Error *e) {
    bool in_string = false;
    for (size_t i = 0; i < n; i++) {
        char c = at[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (!c || !strchr("{}[]:,0123456789 \t\r\n", c)) {
            return error_set(e, "%s: header byte %zu: only unsigned integers, strings, lists and objects may occur",
                             path, i);
        }
    }
    return true;
}

/* Names are looked up, never opened; still, a name that is a path upwards is no name. */
static bool name_check(const char *path, const char *name, Error *e) {
    if (!*name) return error_set(e, "%s: a tensor has an empty name", path);
    if (strlen(name) > 1024) return error_set(e, "%s: a tensor's name is longer than 1024 bytes", path);
    for (const char *c = name; *c; c++)
        if ((unsigned char)*c < 32 || *c == 127)
            return error_set(e, "%s: a tensor's name has a control character", path);
    for (const char *c = name; c; c = strchr(c, '/'), c = c ? c + 1 : NULL)
        if (*c == '/' || (c[0] == '.' && c[1] == '.' && (!c[2] || c[2] == '/')))
            return error_set(e, "%s: tensor '%.100s': the name is a path out of the file", path, name);
    return true;
}

static bool metadata_check(const char *path, json_t *meta, Error *e) {
    const char *key;
    json_t *value;
    if (!json_is_object(meta)) return error_set(e, "%s: __metadata__ is not an object", path);
    json_object_foreach(meta, key, value) if (!json_is_string(value)) return error_set(
        e, "%s: __metadata__ '%.100s' is not a string", path, key);
    return true;
}

static bool shape_read(const char *path, json_t *shape, StTensor *t, int bits, int64_t *bytes, Error *e) {
    if (!json_is_array(shape)) return error_set(e, "%s: tensor '%.100s': shape is not a list", path, t->name);
    if (json_array_size(shape) > ST_MAX_RANK)
        return error_set(e, "%s: tensor '%.100s': more than %d axes", path, t->name, ST_MAX_RANK);
    t->rank = (int)json_array_size(shape);
    int64_t product = 1;
    bool empty = false;
    for (int i = 0; i < t->rank; i++) {
        json_t *n = json_array_get(shape, (size_t)i);
        if (!json_is_integer(n)) return error_set(e, "%s: tensor '%.100s': a size is not an integer", path, t->name);
        t->shape[i] = json_integer_value(n);
        empty |= t->shape[i] == 0;
        if (t->shape[i] && __builtin_mul_overflow(product, t->shape[i], &product))
            return error_set(e, "%s: tensor '%.100s': the shape's product overflows", path, t->name);
    }
    int64_t total;
    if (__builtin_mul_overflow(product, bits, &total))
        return error_set(e, "%s: tensor '%.100s': the shape's product overflows", path, t->name);
    if (empty) total = 0;
    *bytes = total / 8;
    return total % 8 == 0 || error_set(e, "%s: tensor '%.100s': not a whole number of bytes", path, t->name);
}

static bool offsets_read(const char *path, json_t *offsets, StTensor *t, Error *e) {
    json_t *a = json_array_get(offsets, 0), *b = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(a) || !json_is_integer(b))
        return error_set(e, "%s: tensor '%.100s': data_offsets is not two integers", path, t->name);
    t->begin = json_integer_value(a);
    t->end = json_integer_value(b);
    return t->begin <= t->end || error_set(e, "%s: tensor '%.100s': data ends before it begins", path, t->name);
}

static bool tensor_read(const char *path, json_t *info, StTensor *t, Error *e) {
    if (!json_is_object(info)) return error_set(e, "%s: tensor '%.100s': not an object", path, t->name);
    json_t *dtype = json_object_get(info, "dtype"), *shape = json_object_get(info, "shape"),
           *offsets = json_object_get(info, "data_offsets");
    if (!dtype || !shape || !offsets)
        return error_set(e, "%s: tensor '%.100s': dtype, shape or data_offsets is missing", path, t->name);
    if (json_object_size(info) != 3) return error_set(e, "%s: tensor '%.100s': unknown field", path, t->name);
    if (!json_is_string(dtype)) return error_set(e, "%s: tensor '%.100s': dtype is not a string", path, t->name);
    int bits = 0;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!strcmp(types[i].name, json_string_value(dtype)))
            t->type = types[i].name, t->dtype = types[i].dtype, bits = types[i].bits;
    if (!bits)
        return error_set(e, "%s: tensor '%.100s': unknown dtype '%.20s'", path, t->name, json_string_value(dtype));
    int64_t bytes = 0;
    if (!shape_read(path, shape, t, bits, &bytes, e) || !offsets_read(path, offsets, t, e)) return false;
    if (bytes != t->end - t->begin)
        return error_set(e, "%s: tensor '%.100s': shape and dtype need %lld bytes, data_offsets give %lld", path,
                         t->name, (long long)bytes, (long long)(t->end - t->begin));
    t->align = bits % 8 ? 1 : bits / 8;
    return true;
}

static int by_begin(const void *a, const void *b) {
    const StTensor *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end) return x->end < y->end ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b) {
    return strcmp((*(StTensor *const *)a)->name, (*(StTensor *const *)b)->name);
}

static bool cover_check(const char *path, StFile *f, int64_t first, Error *e) {
    int64_t at = 0, bytes = (int64_t)f->map.bytes - first;
    qsort(f->t, (size_t)f->n, sizeof *f->t, by_begin);
    for (int i = 0; i < f->n; i++) {
        StTensor *t = &f->t[i];
        if (t->begin != at)
            return error_set(e, "%s: tensor '%.100s' begins at %lld, %s the end of the one before (%lld)", path,
                             t->name, (long long)t->begin, t->begin < at ? "before" : "after", (long long)at);
        at = t->end;
        f->by_name[i] = t;
    }
    qsort(f->by_name, (size_t)f->n, sizeof *f->by_name, by_name);
    if (at > bytes) return error_set(e, "%s: truncated: %lld bytes of data are missing", path, (long long)(at - bytes));
    if (at < bytes) return error_set(e, "%s: %lld bytes after the last tensor", path, (long long)(bytes - at));
    for (int i = 0; i < f->n; i++) {
        StTensor *t = &f->t[i];
        t->at = f->map.at + first + t->begin;
        if (t->end > t->begin && (first + t->begin) % t->align)
            return error_set(e, "%s: tensor '%.100s': its data is not aligned for %s", path, t->name, t->type);
    }
    return true;
}

/* The header's JSON; blanks may follow it (they pad the data's alignment), nothing may precede it. */
static bool header_parse(const char *path, StFile *f, size_t n, Error *e) {
    const char *at = f->map.at + 8;
    size_t text = n;
    while (text && at[text - 1] == ' ') text--;
    if (!text || at[0] != '{') return error_set(e, "%s: header does not begin with '{'", path);
    if (at[text - 1] != '}') return error_set(e, "%s: header does not end with '}'", path);
    if (!tokens_check(path, at, text, e)) return false;
    json_error_t why;
    json_t *root = json_loadb(at, text, JSON_REJECT_DUPLICATES, &why);
    f->header = root;
    if (!root) return error_set(e, "%s: header: %s", path, why.text);
    f->t = xcalloc(json_object_size(root), sizeof *f->t);
    f->by_name = xcalloc(json_object_size(root), sizeof *f->by_name);
    const char *name;
    json_t *info;
    json_object_foreach(root, name, info) {
        if (!strcmp(name, "__metadata__")) {
            if (!metadata_check(path, info, e)) return false;
            continue;
        }
        f->t[f->n].name = name;
        if (!name_check(path, name, e) || !tensor_read(path, info, &f->t[f->n], e)) return false;
        f->n++;
    }
    return cover_check(path, f, (int64_t)(8 + n), e);
}

static bool file_check(const char *path, StFile *f, Error *e) {
    uint64_t n = 0;
    if (f->map.bytes < 8) return error_set(e, "%s: %zu bytes are no safetensors file", path, f->map.bytes);
    for (int i = 7; i >= 0; i--) n = n << 8 | (unsigned char)f->map.at[i];
    if (n > MAX_HEADER)
        return error_set(e, "%s: header length %llu; at most %d", path, (unsigned long long)n, MAX_HEADER);
    if (n > f->map.bytes - 8) return error_set(e, "%s: truncated: the header ends after the file", path);
    return header_parse(path, f, (size_t)n, e);
}

bool st_open(const char *path, StFile *f, Error *e) {
    *f = (StFile){0};
    if (file_map(path, &f->map, e) && file_check(path, f, e)) return true;
    st_close(f);
    return false;
}

StTensor *st_find(const StFile *f, const char *name) {
    StTensor key = {.name = name}, *k = &key;
    StTensor **hit = f->n ? bsearch(&k, f->by_name, (size_t)f->n, sizeof *f->by_name, by_name) : NULL;
    return hit ? *hit : NULL;
}

void st_close(StFile *f) {
    if (f->header) json_decref(f->header);
    free(f->t);
    free(f->by_name);
    file_unmap(&f->map);
    *f = (StFile){0};
}

/* ---- writing ------------------------------------------------------------------------------------------------ */

/* Larger elements first, so that every tensor is aligned; then by name, so that equal contents are equal files. */
static int by_size(const void *a, const void *b) {
    const StOut *x = a, *y = b;
    int d = dtype_size(y->dtype) - dtype_size(x->dtype);
    return d ? d : strcmp(x->name, y->name);
}

static char *header_text(int n, const StOut *t) {
    json_t *root = json_object();
    int64_t at = 0;
    for (int i = 0; i < n; i++) {
        const char *type = NULL;
        for (size_t k = 0; k < sizeof types / sizeof *types && !type; k++)
            if (types[k].dtype == (int)t[i].dtype) type = types[k].name;
        json_t *shape = json_array();
        for (int k = 0; k < t[i].rank; k++) json_array_append_new(shape, json_integer(t[i].shape[k]));
        json_t *offsets = json_pack("[I,I]", (json_int_t)at, (json_int_t)(at + t[i].bytes));
        json_object_set_new(root, t[i].name,
                            json_pack("{s:s,s:o,s:o}", "dtype", type, "shape", shape, "data_offsets", offsets));
        at += t[i].bytes;
    }
    char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    return text;
}

static bool st_write_all(NewFile *f, int n, const StOut *t, StFill fill, void *ctx, Error *e) {
    char *text = header_text(n, t);
    if (!text) return error_set(e, "%s: a tensor's name is not UTF-8", f->path);
    size_t bytes = strlen(text), padded = (bytes + 7) / 8 * 8;
    unsigned char length[8];
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)padded >> 8 * i);
    bool ok = newfile_write(f, length, 8, e) && newfile_write(f, text, bytes, e) &&
              newfile_write(f, "       ", padded - bytes, e);
    free(text);
    int64_t most = 0;
    for (int i = 0; i < n; i++) most = t[i].bytes > most ? t[i].bytes : most;
    char *buffer = xmalloc((size_t)most);
    for (int i = 0; ok && i < n; i++) {
        fill(ctx, &t[i], buffer);
        ok = newfile_write(f, buffer, (size_t)t[i].bytes, e);
    }
    free(buffer);
    return ok;
}

bool st_write(const char *path, int n, StOut *t, StFill fill, void *ctx, Error *e) {
    for (int i = 0; i < n; i++) {
        t[i].bytes = dtype_size(t[i].dtype);
        for (int k = 0; k < t[i].rank; k++) t[i].bytes *= t[i].shape[k];
        if (!strcmp(t[i].name, "__metadata__")) return error_set(e, "%s: no tensor may be called __metadata__", path);
    }
    qsort(t, (size_t)n, sizeof *t, by_size);
    for (int i = 0; !path && i < n; i++) fill(ctx, &t[i], NULL);
    if (!path) return true;
    NewFile f;
    if (!newfile_open(&f, path, e)) return false;
    if (st_write_all(&f, n, t, fill, ctx, e)) return newfile_commit(&f, e);
    newfile_abandon(&f);
    return false;
}
