/* words.h: a mutator that knows words: a text's word, number or line takes the place of another one.
 *
 * Bytes alone rarely turn one program that is accepted into another one; every second mutation is left to libFuzzer's
 * own, which knows bytes and the dictionary. Included once by a target of a text format. */
#ifndef FUZZ_WORDS_H
#define FUZZ_WORDS_H

#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

size_t LLVMFuzzerMutate(uint8_t *data, size_t bytes, size_t most);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t bytes, size_t most, unsigned seed);

typedef struct Span {
    size_t from, to;
} Span;

static uint32_t fuzz_draw(uint32_t *state, size_t below) {
    *state = *state * 1664525u + 1013904223u;
    return (uint32_t)((*state >> 8) % (below > 0 ? below : 1));
}

static bool is_word(uint8_t c) {
    return isalnum(c) || c == '_' || c == '%' || c == '.';
}

/* The line or the word around a place drawn by chance; a word may be empty. */
static Span fuzz_span(uint32_t *state, const uint8_t *data, size_t bytes, bool line) {
    Span s = {fuzz_draw(state, bytes), 0};
    s.to = s.from;
    while (s.from > 0 && (line ? data[s.from - 1] != '\n' : is_word(data[s.from - 1]))) s.from--;
    while (s.to < bytes && (line ? data[s.to] != '\n' : is_word(data[s.to]))) s.to++;
    if (line && s.to < bytes) s.to++;
    return s;
}

static size_t fuzz_replace(uint8_t *data, size_t bytes, size_t most, Span at, const uint8_t *text, size_t n) {
    if (bytes - (at.to - at.from) + n > most) return bytes;
    memmove(data + at.from + n, data + at.to, bytes - at.to);
    if (n > 0) memcpy(data + at.from, text, n);
    return bytes - (at.to - at.from) + n;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t bytes, size_t most, unsigned seed) {
    static const char *const numbers[] = {"0",  "1",  "2",   "3",   "4",          "8",          "-1",
                                          "16", "64", "0.5", "1e9", "2147483647", "4294967296", "9223372036854775807"};
    uint32_t state = seed;
    uint32_t kind = fuzz_draw(&state, 8);
    if (bytes < 2 || kind >= 4) return LLVMFuzzerMutate(data, bytes, most);
    bool line = kind == 3;
    Span to = fuzz_span(&state, data, bytes, line), from = fuzz_span(&state, data, bytes, line);
    if (kind == 0) {
        const char *number = numbers[fuzz_draw(&state, sizeof numbers / sizeof *numbers)];
        return fuzz_replace(data, bytes, most, to, (const uint8_t *)number, strlen(number));
    }
    size_t n = from.to - from.from;
    uint8_t *copy = malloc(n + 1);
    if (copy == NULL) abort();
    memcpy(copy, data + from.from, n);
    if (line) { /* moved before another line, doubled, or dropped */
        uint32_t how = fuzz_draw(&state, 3);
        if (how == 2) n = 0;
        if (how < 2) to.to = to.from;
    }
    bytes = fuzz_replace(data, bytes, most, to, copy, n);
    free(copy);
    return bytes;
}

#endif
