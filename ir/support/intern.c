/* intern.c: one copy of every name: an open hash table over strings in a private arena.
 *
 * FNV-1a with linear probing; the table doubles at half load. Names live as long as the process, because labels, paths
 * and attribute words are compared by pointer everywhere.
 * Cost: O(length) per call. Not for use by several threads at once. */
#include "intern.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"

typedef struct Name {
    const char *at;
    size_t n;
    uint64_t hash;
} Name;

static struct {
    Arena *text; /* the strings themselves */
    Name *slot;
    size_t count, size; /* size: a power of two */
} names;

enum { FIRST_SIZE = 1024 };

static uint64_t hash_of(const char *s, size_t n) {
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)s[i]) * 1099511628211u;
    return h;
}

/* The slot of this name, or the empty one where it belongs. */
static Name *find_slot(const char *s, size_t n, uint64_t hash) {
    for (size_t i = hash & (names.size - 1);; i = (i + 1) & (names.size - 1)) {
        Name *e = &names.slot[i];
        if (e->at == NULL || (e->hash == hash && e->n == n && memcmp(e->at, s, n) == 0)) return e;
    }
}

static void grow(void) {
    Name *old = names.slot;
    size_t old_size = names.size;
    names.size = old_size == 0 ? FIRST_SIZE : 2 * old_size;
    names.slot = calloc(names.size, sizeof *names.slot);
    if (names.slot == NULL) {
        fputs("moecc: out of memory for names\n", stderr);
        exit(EXIT_FAILURE);
    }
    for (size_t i = 0; i < old_size; i++)
        if (old[i].at != NULL) *find_slot(old[i].at, old[i].n, old[i].hash) = old[i];
    free(old);
}

const char *intern_n(const char *s, size_t n) {
    if (names.text == NULL) names.text = arena_new();
    if (2 * names.count >= names.size) grow();
    uint64_t hash = hash_of(s, n);
    Name *e = find_slot(s, n, hash);
    if (e->at == NULL) {
        char *copy = arena_alloc(names.text, n + 1);
        if (n > 0) memcpy(copy, s, n);
        *e = (Name){copy, n, hash};
        names.count++;
    }
    return e->at;
}

const char *intern(const char *s) {
    return intern_n(s, strlen(s));
}

const char *intern_printf(const char *fmt, ...) {
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    char none[1]; /* NULL makes gcc with -fsanitize=undefined warn about the format */
    int n = vsnprintf(none, sizeof none, fmt, args);
    va_end(args);
    char *text = n < 0 ? NULL : malloc((size_t)n + 1);
    if (text == NULL) {
        fputs("moecc: out of memory for names\n", stderr);
        exit(EXIT_FAILURE);
    }
    vsnprintf(text, (size_t)n + 1, fmt, again);
    va_end(again);
    const char *name = intern_n(text, (size_t)n);
    free(text);
    return name;
}
