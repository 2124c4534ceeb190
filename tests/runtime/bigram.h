/* bigram.h: a small program as the code generator would emit it, written by hand: next = softmax(w[0][x] + w[1][x]),
 * w stacked on two layers and split over the devices, the batch split too, momentum as the optimizer. */
#ifndef BIGRAM_H
#define BIGRAM_H

#include <string.h>

#include "moe_rt.h"

#ifndef BIGRAM_DEVICES
#define BIGRAM_DEVICES 2
#endif

enum { N = BIGRAM_DEVICES, V = 256, B = 8, S = 32, ROWS = B / N, PART = 2 * V / N * V };
enum { AT_w = 0, AT_m = PART * 4, AT_vars = 2 * PART * 4, AT_arg = AT_vars, AT_pos = AT_arg + B * (S + 1) * 4 };
enum { AT_loss = AT_pos + 64, AT_acc = AT_loss + 64, AT_sum = AT_acc + 64, AT_logits = AT_sum + 64 };
enum {
    AT_full = AT_logits + S * V * 4,
    AT_grad = AT_full + 2 * V * V * 4,
    AT_mine = AT_grad + 2 * V * V * 4,
    AT_end = AT_mine + PART * 4
};

static float *at(MoeWorker *w, int64_t offset) {
    return (float *)(void *)(w->arena + offset);
}

static void bigram_row(const float *full, int32_t x, float *out) {
    for (int j = 0; j < V; j++) out[j] = full[x * V + j] + full[(V + x) * V + j];
}

/* Loss of the own rows, and the gradient; by worker 0. */
static void bigram_forward(MoeWorker *w, bool grad) {
    const float *full = at(w, AT_full);
    const int32_t *text = (const int32_t *)(const void *)at(w, AT_arg);
    float *g = at(w, AT_grad), *loss = at(w, AT_sum), row[V];
    memset(g, 0, 2 * V * V * 4);
    loss[0] = loss[1] = 0;
    for (int r = 0; r < ROWS; r++)
        for (int s = 0; s < S; s++) {
            int32_t x = text[r * (S + 1) + s], y = text[r * (S + 1) + s + 1];
            bigram_row(full, x, row);
            float most = row[0], sum = 0;
            int best = 0;
            for (int j = 1; j < V; j++)
                if (row[j] > most) most = row[j], best = j;
            for (int j = 0; j < V; j++) sum += row[j] = MOE_EXP(row[j] - most);
            loss[0] -= MOE_LOG(row[y] / sum) / (B * S);
            loss[1] += best == y ? 1.0f / (B * S) : 0;
            for (int j = 0; grad && j < V; j++) {
                float d = (row[j] / sum - (j == y)) / (B * S);
                g[x * V + j] += d;
                g[(V + x) * V + j] += d;
            }
        }
}

static void bigram_loss(MoeWorker *w) {
    moe_coll(w, 0, at(w, AT_w), at(w, AT_full));
    if (w->worker == 0) bigram_forward(w, false);
    moe_barrier(w);
    moe_coll(w, 2, at(w, AT_sum), at(w, AT_loss));
}

static void bigram_train(MoeWorker *w) {
    moe_coll(w, 0, at(w, AT_w), at(w, AT_full));
    if (w->worker == 0) bigram_forward(w, true);
    moe_barrier(w);
    moe_coll(w, 2, at(w, AT_sum), at(w, AT_loss));
    moe_coll(w, 1, at(w, AT_grad), at(w, AT_mine));
    int64_t lo, hi;
    moe_range(w, PART, 16, &lo, &hi);
    for (int64_t i = lo; i < hi; i++) {
        at(w, AT_m)[i] = 0.9f * at(w, AT_m)[i] + at(w, AT_mine)[i];
        at(w, AT_w)[i] -= 30.0f * at(w, AT_m)[i];
    }
    moe_barrier(w);
}

static void bigram_logits(MoeWorker *w, int width) {
    moe_coll(w, 0, at(w, AT_w), at(w, AT_full));
    for (int s = 0; s < width && w->worker == 0; s++)
        bigram_row(at(w, AT_full), ((const int32_t *)(const void *)at(w, AT_arg))[s], at(w, AT_logits) + s * V);
    moe_barrier(w);
}

static void bigram_decode(MoeWorker *w) {
    bigram_logits(w, 1);
}
static void bigram_prefill(MoeWorker *w) {
    bigram_logits(w, 16);
}

#define SPLIT \
    {         \
        1, {  \
            0 \
        }     \
    }
static const MoeVar vars[] = {
    {.t = {.name = "block.{}.w",
           .rank = 3,
           .size = {2, V, V},
           .label = {"L", "X", "Y"},
           .axes = {[1] = SPLIT},
           .offset = AT_w},
     .trained = true,
     .stacked = true,
     .lo = 0,
     .step = 1,
     .init = MOE_INIT_normal,
     .value = 0.01},
    {.t = {.name = "block.{}.w.m",
           .rank = 3,
           .size = {2, V, V},
           .label = {"L", "X", "Y"},
           .axes = {[1] = SPLIT},
           .offset = AT_m},
     .state = true,
     .stacked = true,
     .lo = 0,
     .step = 1,
     .init = MOE_INIT_const},
};
static const MoeTensor text_arg[] = {{.name = "text",
                                      .dtype = MOE_i32,
                                      .rank = 2,
                                      .size = {B, S + 1},
                                      .label = {"B", "S+1"},
                                      .axes = {SPLIT},
                                      .offset = AT_arg}};
static const MoeTensor loss_results[] = {{.name = "loss", .offset = AT_loss},
                                         {.name = "accuracy", .offset = AT_loss + 4}};
static const MoeTensor decode_args[] = {
    {.name = "tokens", .dtype = MOE_i32, .rank = 2, .size = {1, 1}, .label = {"B", "S"}, .offset = AT_arg},
    {.name = "pos", .dtype = MOE_i32, .rank = 1, .size = {1}, .label = {"B"}, .offset = AT_pos}};
static const MoeTensor prefill_args[] = {
    {.name = "tokens", .dtype = MOE_i32, .rank = 2, .size = {1, 16}, .label = {"B", "S"}, .offset = AT_arg},
    {.name = "pos", .dtype = MOE_i32, .rank = 1, .size = {1}, .label = {"B"}, .offset = AT_pos}};
static const MoeTensor decode_results[] = {
    {.name = "logits", .rank = 3, .size = {1, 1, V}, .label = {"B", "S", "V"}, .offset = AT_logits}};
static const MoeTensor prefill_results[] = {
    {.name = "logits", .rank = 3, .size = {1, 16, V}, .label = {"B", "S", "V"}, .offset = AT_logits}};
static const MoeFunc funcs[] = {
    {"loss", false, 1, 2, text_arg, loss_results, AT_end, bigram_loss},
    {"loss", true, 1, 2, text_arg, loss_results, AT_end, bigram_train},
    {"decode", false, 2, 1, decode_args, decode_results, AT_end, bigram_decode},
    {"prefill", false, 2, 1, prefill_args, prefill_results, AT_end, bigram_prefill},
};
static const MoeColl colls[] = {
    {.kind = MOE_all_gather,
     .axes = SPLIT,
     .rank = 3,
     .in = {2, V / N, V},
     .out = {2, V, V},
     .join = 1,
     .split = -1,
     .where = "bigram:1"},
    {.kind = MOE_reduce_scatter,
     .axes = SPLIT,
     .rank = 3,
     .in = {2, V, V},
     .out = {2, V / N, V},
     .join = -1,
     .split = 1,
     .where = "bigram:2"},
    {.kind = MOE_all_reduce,
     .axes = SPLIT,
     .rank = 1,
     .in = {2},
     .out = {2},
     .join = -1,
     .split = -1,
     .where = "bigram:3"},
};

const MoeProgram moe_program = {
    .abi = MOE_ABI,
    .source = "bigram.moe",
    .naxes = 1,
    .axis_name = {"data"},
    .axis_size = {N},
    .devices = N,
    .nvars = 2,
    .nfuncs = 4,
    .ncolls = 3,
    .vars = vars,
    .funcs = funcs,
    .colls = colls,
    .vars_bytes = AT_vars,
    .generate_decode = "decode",
    .generate_positions = 64,
    .generate_prefill = "prefill",
};

#endif
