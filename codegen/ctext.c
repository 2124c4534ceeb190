/* ctext.c: small pieces of C text: numbers, device offsets, types, comments. */
#include "ctext.h"

#include <float.h>
#include <math.h>
#include <string.h>

static const char *const storage[DT_COUNT] = {
#define DTYPE(id, bytes, ctype, doc) [DT_##id] = #ctype,
#include "dtypes.def"
#undef DTYPE
};

const char *storage_type(DType t) {
    return storage[t];
}
const char *temp_type(DType t) {
    return t == DT_i32 || t == DT_bool ? "int32_t" : "float";
}

const char *const_text(Arena *a, DType t, double value) {
    if (t == DT_bool) return value != 0 ? "1" : "0";
    if (t == DT_i32) {
        /* The most negative number has no literal of its own type. */
        if (value <= (double)INT32_MIN) return "INT32_MIN";
        if (value >= (double)INT32_MAX) return "INT32_MAX";
        return arena_printf(a, "%d", (int)value);
    }
    if (isnan(value)) return "MOE_NAN";
    if (isinf(value) || fabs(value) > (double)FLT_MAX) return value > 0 ? "MOE_INF" : "-MOE_INF";
    float f = (float)value;
    char *s = arena_printf(a, "%.9g", (double)f);
    /* "2" would be an integer, and "2f" is no number. */
    return arena_printf(a, strpbrk(s, ".e") != NULL ? "%sf" : "%s.0f", s);
}

const char *index_text(Arena *a, const Mesh *m, const AxisList *axes) {
    const char *text = NULL;
    for (int i = 0; i < axes->n; i++) {
        int axis = axes->at[i];
        if (m->size[axis] == 1) continue;
        if (text == NULL)
            text = arena_printf(a, "w->coord[%d]", axis);
        else
            text = arena_printf(a, "(%s * %lld + w->coord[%d])", text, (long long)m->size[axis], axis);
    }
    return text;
}

const char *dyn_add(Arena *a, const char *x, const char *y, int64_t times) {
    if (y == NULL || times == 0) return x;
    const char *term = times == 1 ? y : arena_printf(a, "%s * %lld", y, (long long)times);
    return x == NULL ? term : arena_printf(a, "%s + %s", x, term);
}

const char *offset_text(Arena *a, const Mesh *m, const Dim *d) {
    return dyn_add(a, NULL, index_text(a, m, &d->axes), dim_local(m, d));
}

void str_add_comment(Str *s, const char *text) {
    for (; *text != '\0'; text++) {
        char c = *text;
        /* A backslash at the end would continue the comment; a trigraph could make one. */
        if (c < ' ' || c > '~' || c == '\\' || c == '?') c = '.';
        str_add_n(s, &c, 1);
    }
}
