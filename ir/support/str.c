/* str.c: a string builder in an arena, C quoting, and the guess behind "did you mean".
 *
 * The text doubles in capacity as it grows; a NUL always follows the last byte.
 * str_nearest: edit distance with transpositions (optimal string alignment), O(length^2) a candidate, so words longer
 * than a fixed bound are never candidates. */
#include "str.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { FIRST_CAPACITY = 64, LONGEST_WORD = 40 };

Str str_new(Arena *arena) {
    return (Str){arena, NULL, 0, 0};
}

/* Room for n more bytes and the NUL. */
static void reserve(Str *s, size_t n) {
    if (s->at != NULL && s->cap - s->n > n) return;
    size_t cap = s->cap == 0 ? FIRST_CAPACITY : s->cap;
    while (cap - s->n <= n) cap *= 2;
    char *fresh = arena_alloc(s->arena, cap);
    if (s->n > 0) memcpy(fresh, s->at, s->n);
    s->at = fresh;
    s->cap = cap;
}

void str_add_n(Str *s, const char *text, size_t n) {
    reserve(s, n);
    if (n > 0) memcpy(s->at + s->n, text, n);
    s->n += n;
    s->at[s->n] = '\0';
}

void str_add(Str *s, const char *text) {
    str_add_n(s, text, strlen(text));
}

void str_addf(Str *s, const char *fmt, ...) {
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    char none[1]; /* NULL makes gcc with -fsanitize=undefined warn about the format */
    int n = vsnprintf(none, sizeof none, fmt, args);
    va_end(args);
    if (n > 0) {
        reserve(s, (size_t)n);
        vsnprintf(s->at + s->n, (size_t)n + 1, fmt, again);
        s->n += (size_t)n;
    } else {
        reserve(s, 0);
    }
    va_end(again);
}

void str_add_quoted(Str *s, const char *text) {
    str_add_n(s, "\"", 1);
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0'; p++) {
        /* '?' is escaped because two of them could begin a trigraph. */
        if (*p < ' ' || *p >= 127 || *p == '"' || *p == '\\' || *p == '?')
            str_addf(s, "\\%03o", (unsigned)*p);
        else
            str_add_n(s, (const char *)p, 1);
    }
    str_add_n(s, "\"", 1);
}

static int least(int a, int b) {
    return a < b ? a : b;
}

/* Insertions, deletions, substitutions and swaps of neighbours that lead from a to b. */
static int edit_distance(const char *a, const char *b) {
    int rows[3][LONGEST_WORD + 1];
    int na = (int)strlen(a), nb = (int)strlen(b);
    int *before = rows[0], *last = rows[1], *now = rows[2];
    for (int j = 0; j <= nb; j++) last[j] = before[j] = j;
    for (int i = 1; i <= na; i++) {
        now[0] = i;
        for (int j = 1; j <= nb; j++) {
            now[j] = least(last[j - 1] + (a[i - 1] != b[j - 1]), 1 + least(last[j], now[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = least(now[j], before[j - 2] + 1);
        }
        int *spare = before;
        before = last;
        last = now;
        now = spare;
    }
    return last[nb];
}

const char *str_nearest(const char *word, const char *const *candidates, int n) {
    size_t length = strlen(word);
    if (length > LONGEST_WORD) return NULL;
    /* A third of the letters may be wrong, and never all of them. */
    int limit = (int)(length + 2) / 3, best = limit + 1;
    const char *nearest = NULL;
    for (int i = 0; i < n; i++) {
        if (strlen(candidates[i]) > LONGEST_WORD) continue;
        int d = edit_distance(word, candidates[i]);
        if (d < best && d < (int)length) {
            best = d;
            nearest = candidates[i];
        }
    }
    return nearest;
}
