/* gemm_pack.c: products whose operands have no unit stride (a batch axis innermost, say): dense copies, the product of
 * the copies by whatever is fastest, and the result copied back.
 *
 * A copy walks the batch, then 16 x 16 tiles whose sides are the axis that is dense in the source and the one that is
 * dense in the copy, so that each cache line is read once and written once while it is in the first-level cache. */
#include "gemm.h"

#include <stdlib.h>
#include <string.h>

enum { AXES = 6, TILE = 16 };

/* An operand as up to 6 axes, batch first: sizes, strides in place, strides in the dense copy. */
typedef struct Layout {
    int n;
    int64_t size[AXES], from[AXES], to[AXES];
    int64_t elements;
} Layout;

static void operand_strides(const MoeGemm *g, int operand, const int64_t **batch, int64_t *rows, int64_t *cols,
                            int64_t *rs, int64_t *cs) {
    *batch = operand == 0 ? g->a_batch : operand == 1 ? g->b_batch : g->c_batch;
    *rows = operand == 1 ? g->k : g->m;
    *cols = operand == 0 ? g->k : g->n;
    *rs = operand == 0 ? g->a_m : operand == 1 ? g->b_k : g->c_m;
    *cs = operand == 0 ? g->a_k : operand == 1 ? g->b_n : g->c_n;
}

bool gemm_plain(const MoeGemm *g, int operand) {
    const int64_t *batch;
    int64_t rows, cols, rs, cs;
    operand_strides(g, operand, &batch, &rows, &cols, &rs, &cs);
    return (cs == 1 && rs >= cols) || (operand != 2 && rs == 1 && cs >= rows);
}

static Layout layout_of(const MoeGemm *g, int operand) {
    Layout l = {.n = 0};
    const int64_t *batch;
    int64_t rows, cols, rs, cs;
    operand_strides(g, operand, &batch, &rows, &cols, &rs, &cs);
    for (int i = 0; i < g->nbatch; i++)
        if (batch[i]) l.size[l.n] = g->batch[i], l.from[l.n++] = batch[i];
    l.size[l.n] = rows, l.from[l.n++] = rs;
    l.size[l.n] = cols, l.from[l.n++] = cs;
    l.elements = 1;
    for (int i = l.n - 1; i >= 0; i--) {
        l.to[i] = l.elements;
        l.elements *= l.size[i];
    }
    return l;
}

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* x: axis dense in place, y: axis dense in the copy, at one index of the other axes. */
static void tiles_copy(const Layout *l, int x, int y, float *place, float *copy, bool back) {
    int64_t nx = x == y ? 1 : l->size[x], ny = l->size[y];
    for (int64_t i0 = 0; i0 < nx; i0 += TILE)
        for (int64_t j0 = 0; j0 < ny; j0 += TILE)
            for (int64_t i = i0; i < least(i0 + TILE, nx); i++) {
                float *p = place + i * l->from[x], *q = copy + i * l->to[x];
                for (int64_t j = j0; j < least(j0 + TILE, ny); j++) {
                    if (back)
                        p[j * l->from[y]] = q[j * l->to[y]];
                    else
                        q[j * l->to[y]] = p[j * l->from[y]];
                }
            }
}

static void layout_copy(const Layout *l, float *place, float *copy, bool back) {
    int x = l->n - 1, y = l->n - 1;
    int64_t index[AXES] = {0}, others = l->elements;
    for (int i = 0; i < l->n; i++)
        if (l->from[i] < l->from[x]) x = i;
    others /= x == y ? l->size[y] : l->size[x] * l->size[y];
    for (int64_t q = 0; q < others; q++) {
        tiles_copy(l, x, y, place, copy, back);
        for (int i = l->n - 1; i >= 0; i--) {
            if (i == x || i == y) continue;
            place += l->from[i], copy += l->to[i];
            if (++index[i] < l->size[i]) break;
            place -= l->size[i] * l->from[i], copy -= l->size[i] * l->to[i];
            index[i] = 0;
        }
    }
}

static void run_packed(Worker *w, GemmSlot *s, const float *a, const float *b, float *c) {
    float *at[3] = {(float *)(uintptr_t)a, (float *)(uintptr_t)b, c}, *use[3];
    for (int i = 0; i < 3; i++) {
        use[i] = s->copy[i] ? s->copy[i] : at[i];
        Layout l = layout_of(&s->g, i);
        if (s->copy[i] && (i < 2 || s->g.accumulate)) layout_copy(&l, at[i], s->copy[i], false);
    }
    s->dense->run(w, s->dense, use[0], use[1], use[2]);
    if (!s->copy[2]) return;
    Layout l = layout_of(&s->g, 2);
    layout_copy(&l, c, s->copy[2], true);
}

/* The operand's strides in g become those of a dense copy. */
static void strides_dense(MoeGemm *g, int operand, const Layout *l) {
    int64_t *batch = operand == 0 ? g->a_batch : operand == 1 ? g->b_batch : g->c_batch;
    int64_t *rs = operand == 0 ? &g->a_m : operand == 1 ? &g->b_k : &g->c_m;
    int64_t *cs = operand == 0 ? &g->a_k : operand == 1 ? &g->b_n : &g->c_n;
    int n = 0;
    for (int i = 0; i < g->nbatch; i++)
        if (batch[i]) batch[i] = l->to[n++];
    *rs = l->to[l->n - 2];
    *cs = l->to[l->n - 1];
}

bool gemm_pack_prepare(Worker *w, GemmSlot *s) {
    bool any = false;
    s->dense = xcalloc(1, sizeof *s->dense);
    s->dense->g = s->g;
    for (int i = 0; i < 3; i++) {
        if (gemm_plain(&s->g, i)) continue;
        Layout l = layout_of(&s->g, i);
        strides_dense(&s->dense->g, i, &l);
        s->copy[i] = xmalloc((size_t)l.elements * sizeof(float));
        any = true;
    }
    if (!any) return false;
    gemm_choose(w, s->dense);
    s->run = run_packed;
    return true;
}
