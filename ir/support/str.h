/* str.h: a string builder in an arena. */
#ifndef MOECC_STR_H
#define MOECC_STR_H

#include <stdint.h>

#include "arena.h"

typedef struct Str {
    Arena *arena;
    char *at; /* always NUL-terminated once written to */
    size_t n, cap;
} Str;

Str str_new(Arena *arena);
void str_add(Str *s, const char *text);
void str_add_n(Str *s, const char *text, size_t n);
void str_addf(Str *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The bytes as a C string literal with its quotes: octal escapes, no trigraphs, no raw newline. */
void str_add_quoted(Str *s, const char *text);

/* The candidate nearest to `word` in edit distance, when near enough to be a likely typo, else NULL. */
const char *str_nearest(const char *word, const char *const *candidates, int n);

#endif
