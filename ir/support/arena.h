/* arena.h: memory by lifetime.
 *
 * One arena lives for a whole compilation, one scratch arena for a single pass; nothing in a pass is freed by hand.
 * Allocation never returns NULL: exhausted memory ends the process with a message. Built with ARENA_MALLOC, every
 * object is a malloc of its own, so that sanitizers see its exact bounds. */
#ifndef MOECC_ARENA_H
#define MOECC_ARENA_H

#include <stddef.h>

typedef struct Arena Arena;

Arena *arena_new(void);
void arena_free(Arena *a);
/* Frees all objects and keeps the arena. */
void arena_reset(Arena *a);
/* Zeroed memory, aligned for any object. */
void *arena_alloc(Arena *a, size_t bytes);
void *arena_copy(Arena *a, const void *from, size_t bytes);
char *arena_strdup(Arena *a, const char *s);
char *arena_printf(Arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define NEW(arena, T) ((T *)arena_alloc((arena), sizeof(T)))
#define NEW_ARRAY(arena, T, n) ((T *)arena_alloc((arena), sizeof(T) * (size_t)(n)))

#endif
