/* arena.c: memory by lifetime, as a chain of chunks that grow geometrically.
 *
 * An object is cut from the newest chunk; one that does not fit opens a chunk of its own size or twice the last one's.
 * Nothing is freed but the whole chain. With ARENA_MALLOC every object is a chunk of exactly its own size, so that
 * AddressSanitizer sees its bounds and Valgrind its reads of memory that nobody wrote.
 *
 * Invariant: every byte handed out is zero and was never handed out before since the last reset.
 * Cost: O(1) per object, plus zeroing. */
#include "arena.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Chunk {
    struct Chunk *older;
    size_t used, size; /* bytes of `at` */
    max_align_t at[];
} Chunk;

struct Arena {
    Chunk *newest;
};

enum { ALIGN = _Alignof(max_align_t), FIRST_CHUNK = 1 << 14, LARGEST_CHUNK = 1 << 22 };

#ifdef ARENA_MALLOC
static const bool one_object_a_chunk = true;
#else
static const bool one_object_a_chunk = false;
#endif

/* The one place where memory runs out: a compiler has nothing better to do than to say so. */
static _Noreturn void out_of_memory(size_t bytes) {
    fprintf(stderr, "moecc: out of memory (asked for %zu bytes)\n", bytes);
    exit(EXIT_FAILURE);
}

static void *zeroed(size_t bytes) {
    void *p = calloc(1, bytes);
    if (p == NULL) out_of_memory(bytes);
    return p;
}

Arena *arena_new(void) {
    return zeroed(sizeof(Arena));
}

void arena_reset(Arena *a) {
    while (a->newest != NULL) {
        Chunk *c = a->newest;
        a->newest = c->older;
        free(c);
    }
}

void arena_free(Arena *a) {
    if (a == NULL) return;
    arena_reset(a);
    free(a);
}

static void open_chunk(Arena *a, size_t bytes) {
    size_t size = bytes;
    if (!one_object_a_chunk) {
        size_t wish = a->newest == NULL ? FIRST_CHUNK : 2 * a->newest->size;
        if (wish > LARGEST_CHUNK) wish = LARGEST_CHUNK;
        if (size < wish) size = wish;
    }
    Chunk *c = zeroed(sizeof *c + size);
    c->size = size;
    c->older = a->newest;
    a->newest = c;
}

void *arena_alloc(Arena *a, size_t bytes) {
    if (bytes > SIZE_MAX / 4) out_of_memory(bytes);
    size_t padded = one_object_a_chunk ? bytes : (bytes + ALIGN - 1) / ALIGN * ALIGN;
    if (one_object_a_chunk || a->newest == NULL || a->newest->size - a->newest->used < padded) open_chunk(a, padded);
    void *p = (char *)a->newest->at + a->newest->used;
    a->newest->used += padded;
    return p;
}

void *arena_copy(Arena *a, const void *from, size_t bytes) {
    void *to = arena_alloc(a, bytes);
    if (bytes > 0) memcpy(to, from, bytes);
    return to;
}

char *arena_strdup(Arena *a, const char *s) {
    return arena_copy(a, s, strlen(s) + 1);
}

char *arena_printf(Arena *a, const char *fmt, ...) {
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    char none[1]; /* NULL makes gcc with -fsanitize=undefined warn about the format */
    int n = vsnprintf(none, sizeof none, fmt, args);
    va_end(args);
    if (n < 0) out_of_memory(0);
    char *text = arena_alloc(a, (size_t)n + 1);
    vsnprintf(text, (size_t)n + 1, fmt, again);
    va_end(again);
    return text;
}
