/* ops.c: the op table and the element types as data.
 *
 * ops.def is expanded once here into descriptors; the columns that belong to a layer (shape, grad) are expanded by that
 * layer instead. Lookups scan the table: it has some sixty rows, and only the reader of text forms looks up by name. */
#include <string.h>

#include "ir.h"

const OpInfo op_info[OP_COUNT] = {
#define OP(id, in, attrs, phases, shape, rule, grad, emit, expr, doc) \
    [OP_##id] = {#id, in, attrs, phases, rule, EMIT_##emit, #expr, doc},
#include "ops.def"
#undef OP
};

Op op_find(const char *name) {
    for (int i = 0; i < OP_COUNT; i++)
        if (strcmp(op_info[i].name, name) == 0) return (Op)i;
    return OP_COUNT;
}

/* Whether the blank-separated words of `list` contain `word`. */
static bool word_in(const char *list, const char *word) {
    size_t n = strlen(word);
    while (*list != '\0') {
        size_t k = strcspn(list, " ");
        if (k == n && memcmp(list, word, n) == 0) return true;
        list += k + strspn(list + k, " ");
    }
    return false;
}

bool op_has_attr(Op op, const char *attr) {
    return word_in(op_info[op].attrs, attr);
}

static const struct {
    const char *name;
    int bytes;
} dtypes[DT_COUNT] = {
#define DTYPE(id, bytes, ctype, doc) [DT_##id] = {#id, bytes},
#include "dtypes.def"
#undef DTYPE
};

int dtype_bytes(DType t) {
    return dtypes[t].bytes;
}
const char *dtype_name(DType t) {
    return dtypes[t].name;
}
