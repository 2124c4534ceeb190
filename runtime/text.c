/* text.c: a file's bytes as tokens.
 *
 * The last 5 % are held out. A training row is a window of the rest whose start is drawn by (seed, step, row), so a
 * resumed run sees exactly the rows it would have seen, at any number of devices. Evaluation goes through the held-out
 * part once: windows of S + 1 tokens at stride S, so that every token is predicted once. */
#include "host.h"

enum { TEXT_MARK = 0x74657874 };

bool text_open(const char *path, Text *t, Error *e) {
    *t = (Text){0};
    if (!file_map(path, &t->map, e)) return false;
    t->held = (int64_t)t->map.bytes / 20;
    t->train = (int64_t)t->map.bytes - t->held;
    return t->map.bytes > 0 || error_set(e, "%s: empty", path);
}

void text_close(Text *t) {
    file_unmap(&t->map);
}

static void row_copy(const char *at, int64_t width, int32_t *out) {
    for (int64_t i = 0; i < width; i++) out[i] = (unsigned char)at[i];
}

bool text_train(const Text *t, uint32_t seed, int64_t step, int64_t rows, int64_t width, int32_t *out) {
    if (t->train < width) return false;
    uint64_t starts = (uint64_t)(t->train - width + 1);
    for (int64_t r = 0; r < rows; r++) {
        MoePhilox x = moe_philox(seed, TEXT_MARK, (uint32_t)r, 0, (uint32_t)step, (uint32_t)(step >> 32));
        uint64_t draw = (uint64_t)x.x0 << 32 | x.x1;
        row_copy(t->map.at + (int64_t)(draw % starts), width, out + r * width);
    }
    return true;
}

int64_t text_windows(const Text *t, int64_t width) {
    return t->held < width || width < 2 ? 0 : (t->held - width) / (width - 1) + 1;
}

void text_eval(const Text *t, int64_t first, int64_t rows, int64_t width, int32_t *out) {
    for (int64_t r = 0; r < rows; r++)
        row_copy(t->map.at + t->train + (first + r) * (width - 1), width, out + r * width);
}
