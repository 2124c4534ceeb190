/* eval_test.c: what each op computes, on one device and on several, and what the interpreter refuses.
 *
 * A case is a module's text, its arguments as numbers, and its results as text: "1 2 | 3", one part a result. */
#include "irtest.h"

#include <math.h>

#include "compare.h"
#include "random.h"

static Arena *arena;

static int set_up(void **state) {
    (void)state;
    arena = arena_new();
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    arena_free(arena);
    diag_reset();
    return 0;
}

static Module *parse(const char *text) {
    Module *m = module_parse(arena, "test.ir", text, strlen(text));
    if (m == NULL) fail_msg("does not parse:\n%s", text);
    const char *wrong = module_verify(m, arena);
    if (wrong != NULL) fail_msg("%s\n%s", wrong, text);
    return m;
}

static const char *tensor_text(const Tensor *t) {
    Str s = str_new(arena);
    str_add(&s, "");
    for (int64_t i = 0; i < type_elements(&t->type); i++) str_addf(&s, "%s%.10g", i > 0 ? " " : "", t->at[i]);
    return s.at;
}

/* Numbers from text, for all arguments one after the other. */
static Tensor *arguments(const Func *f, const char *numbers) {
    Tensor *args = NEW_ARRAY(arena, Tensor, f->body->args.n + 1);
    for (int k = 0; k < f->body->args.n; k++) {
        args[k] = tensor_new(arena, &f->body->args.at[k]->type);
        for (int64_t i = 0; i < type_elements(&args[k].type); i++) {
            char *end;
            args[k].at[i] = strtod(numbers, &end);
            assert_true(end > numbers);
            numbers = end;
        }
    }
    return args;
}

static const char *run_with(const Module *m, const char *numbers, const EvalOptions *opt, EvalState *state) {
    const Func *f = m->funcs.at[0];
    const char *error = "no sentence";
    const Tensor *r = eval_func(m, f, arguments(f, numbers), state, opt, arena, &error);
    if (r == NULL) return error;
    Str s = str_new(arena);
    str_add(&s, "");
    for (int k = 0; k < f->body->results.n; k++) str_addf(&s, "%s%s", k > 0 ? " | " : "", tensor_text(&r[k]));
    return s.at;
}

static const char *run(const char *text, const char *numbers) {
    const Module *m = parse(text);
    EvalOptions opt = {.f64 = true, .step = 3, .steps = 9, .limit = 1 << 24};
    EvalState state = eval_init(m, arena, &opt);
    return run_with(m, numbers, &opt, &state);
}

/* A function of one line: operands, the line's right side, the result's name is %r. */
#define ONE(args, names, line) \
    "moecc-ir 1 ANNOTATED\nmesh []\nentry \"f\" (" args ") -> (" names ") {\n" line "\nreturn %r\n}\n"
#define CHECK(args, line, numbers, want) assert_string_equal(run(ONE(args, "\"r\"", line), numbers), want)

static void elements(void **state) {
    (void)state;
#define X2 "%a: f32[A:3], %b: f32[A:3]"
#define I2 "%a: i32[A:3], %b: i32[A:3]"
#define B2 "%a: bool[A:4], %b: bool[A:4]"
    CHECK(X2, "%r = add %a, %b : f32[A:3]", "1 2 3 4 5 6", "5 7 9");
    CHECK(X2, "%r = div %a, %b : f32[A:3]", "1 -2 3 4 0 0", "0.25 -inf inf");
    CHECK(I2, "%r = div %a, %b : i32[A:3]", "7 -7 7 2 2 0", "3 -4 0");
    CHECK(I2, "%r = mod %a, %b : i32[A:3]", "7 -7 7 -2 2 0", "-1 1 0");
    CHECK(X2, "%r = mod %a, %b : f32[A:3]", "7.5 -7 7 -2 2 0", "-0.5 1 0");
    CHECK(I2, "%r = mul %a, %b : i32[A:3]", "65536 2147483647 -3 65536 2 5", "0 -2 -15");
    CHECK(X2, "%r = maximum %a, %b : f32[A:3]", "1 2 3 3 2 1", "3 2 3");
    CHECK(X2, "%r = pow %a, %b : f32[A:3]", "2 9 5 10 0.5 0", "1024 3 1");
    CHECK(X2, "%r = lt %a, %b : bool[A:3]", "1 2 3 2 2 2", "1 0 0");
    CHECK(I2, "%r = le %a, %b : bool[A:3]", "1 2 3 2 2 2", "1 1 0");
    CHECK(B2, "%r = and %a, %b : bool[A:4]", "0 0 1 1 0 1 0 1", "0 0 0 1");
    CHECK(B2, "%r = or %a, %b : bool[A:4]", "0 0 1 1 0 1 0 1", "0 1 1 1");
    CHECK("%a: bool[A:2]", "%r = not %a : bool[A:2]", "0 1", "1 0");
    CHECK("%a: bool[A:2], %b: f32[], %c: f32[A:2]", "%r = where %a, %b, %c : f32[A:2]", "0 1 7 8 9", "8 7");
    CHECK("%a: i32[A:2]", "%r = neg %a : i32[A:2]", "-2147483648 5", "-2147483648 -5");
    CHECK("%a: f32[A:3]", "%r = sign %a : f32[A:3]", "-2 0 0.5", "-1 0 1");
    CHECK("%a: f32[A:3]", "%r = floor %a : f32[A:3]", "-1.5 0 2.9", "-2 0 2");
    CHECK("%a: f32[A:2]", "%r = rsqrt %a : f32[A:2]", "4 0.25", "0.5 2");
    CHECK("%a: f32[A:2]", "%r = sigmoid %a : f32[A:2]", "0 1000", "0.5 1");
    CHECK("%a: f32[A:4]", "%r = cast %a {dtype=i32} : i32[A:4]", "-1.9 1.9 1e20 nan", "-1 1 -2147483648 -2147483648");
    CHECK("%a: f32[A:2]", "%r = cast %a {dtype=bool} : bool[A:2]", "0 -0.5", "0 1");
    /* operands broadcast by label, in whatever order */
    CHECK("%a: f32[A:2, B:2], %b: f32[B:2, A:2]", "%r = sub %a, %b : f32[A:2, B:2]", "1 2 3 4 1 2 3 4", "0 -1 1 0");
    CHECK("%a: f32[B:2], %b: f32[A:2]", "%r = mul %a, %b : f32[B:2, A:2]", "1 2 3 4", "3 4 6 8");
}

static void sources(void **state) {
    (void)state;
    CHECK("", "%r = const {value=0.5, dims=(A:2)} : f32[A:2]", "", "0.5 0.5");
    CHECK("", "%r = iota {dims=(A:3)} : i32[A:3]", "", "0 1 2");
    CHECK("", "%r = runtime {kind=step} : i32[]", "", "3");
    CHECK("", "%r = runtime {kind=steps} : i32[]", "", "9");
    CHECK("%a: i32[A:3]", "%r = one_hot %a {label=B, size=2} : bool[A:3, B:2]", "1 2 0", "0 1 0 0 1 0");
    CHECK("%a: f32[A:2]", "%r = broadcast %a {dims=(B:2, A:2)} : f32[B:2, A:2]", "1 2", "1 2 1 2");
}

static void philox_is_the_published_one(void **state) {
    (void)state;
    static const struct {
        uint32_t key, counter[4], key1, want[4];
    } known[] = {
        {0, {0, 0, 0, 0}, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {~0u, {~0u, ~0u, ~0u, ~0u}, ~0u, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0xa4093822,
         {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         0x299f31d0,
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const uint32_t *c = known[i].counter;
        Philox p = philox(known[i].key, known[i].key1, c[0], c[1], c[2], c[3]);
        for (int k = 0; k < 4; k++) assert_int_equal(p.x[k], known[i].want[k]);
    }
}

static void random_is_standard(void **state) {
    (void)state;
    Draw d = {1, 2, 3, 4};
    double sum = 0, square = 0, mean = 0;
    enum { N = 20000 };
    for (uint64_t i = 0; i < N; i++) {
        double x = random_normal(&d, i), u = random_uniform(&d, i);
        assert_true(u >= 0 && u < 1);
        sum += x;
        square += x * x;
        mean += u;
    }
    assert_true(fabs(sum / N) < 0.03 && fabs(square / N - 1) < 0.04 && fabs(mean / N - 0.5) < 0.01);
}

static void contractions_and_folds(void **state) {
    (void)state;
    CHECK("%a: f32[A:2, K:2], %b: f32[K:2, B:2]", "%r = einsum %a, %b {labels=(B, A)} : f32[B:2, A:2]",
          "1 2 3 4 5 6 7 8", "19 43 22 50");
    CHECK("%a: f32[A:2], %b: f32[B:2], %c: f32[]", "%r = einsum %a, %b, %c : f32[]", "1 2 3 4 5", "105");
    CHECK("%a: i32[A:2], %b: i32[A:2]", "%r = einsum %a, %b : i32[]", "65536 3 65537 5", "65551");
#define REDUCE(kind) "%r = reduce %a {labels=(A), kind=" kind "} : f32[B:2]"
    CHECK("%a: f32[A:2, B:2]", REDUCE("sum"), "1 2 3 5", "4 7");
    CHECK("%a: f32[A:2, B:2]", REDUCE("max"), "1 2 3 -inf", "3 2");
    CHECK("%a: f32[A:2, B:2]", REDUCE("min"), "1 2 3 5", "1 2");
    CHECK("%a: f32[A:1]", "%r = reduce %a {labels=(A), kind=max} : f32[]", "-inf", "-3.402823466e+38");
    CHECK("%a: bool[A:3]", "%r = reduce %a {labels=(A), kind=sum} : i32[]", "1 0 1", "2");
    CHECK("%a: bool[A:3]", "%r = reduce %a {labels=(A), kind=any} : bool[]", "0 0 1", "1");
    CHECK("%a: f32[A:3]", "%r = cumsum %a {label=A} : f32[A:3]", "1 2 3", "1 3 6");
    CHECK("%a: f32[A:3]", "%r = cumsum %a {label=A, exclusive=true} : f32[A:3]", "1 2 3", "0 1 3");
    CHECK("%a: f32[A:3]", "%r = cumsum %a {label=A, reverse=true} : f32[A:3]", "1 2 3", "6 5 3");
    CHECK("%a: f32[A:3]", "%r = cumsum %a {label=A, exclusive=true, reverse=true} : f32[A:3]", "1 2 3", "5 3 0");
    CHECK("%a: f32[A:2, B:2]", "%r = cumsum %a {label=A} : f32[A:2, B:2]", "1 2 3 4", "1 2 4 6");
#define TOP_K "%r, %i = top_k %a {label=A, to=K, size=3} : f32[K:3], i32[K:3]\nreturn %r, %i\n}\n"
#define TOP_K_TEXT "moecc-ir 1 ANNOTATED\nmesh []\nentry \"f\" (%a: f32[A:4]) -> (\"r\", \"i\") {\n" TOP_K
    assert_string_equal(run(TOP_K_TEXT, "1 3 2 3"), "3 3 2 | 1 3 2");
    assert_string_equal(run(TOP_K_TEXT, "nan 1 nan -inf"), "1 -inf nan | 1 3 0");
}

static void moves(void **state) {
    (void)state;
    CHECK("%a: f32[A:2, B:3]", "%r = relabel %a {labels=(A, B), dims=(C:3, D:2)} : f32[C:3, D:2]", "1 2 3 4 5 6",
          "1 2 3 4 5 6");
    CHECK("%a: f32[A:2, B:3]", "%r = relabel %a {labels=(B, A), dims=(C:6)} : f32[C:6]", "1 2 3 4 5 6", "1 4 2 5 3 6");
    CHECK("%a: f32[A:2, B:1, C:2]", "%r = relabel %a {labels=(C, A), dims=(S:4)} : f32[S:4, B:1]", "1 2 3 4",
          "1 3 2 4");
    CHECK("%a: f32[A:4]", "%r = slice %a {label=A, to=C, start=1, size=2} : f32[C:2]", "1 2 3 4", "2 3");
    CHECK("%a: f32[A:2, B:2]", "%r = slice %a {label=B, start=1, size=1} : f32[A:2]", "1 2 3 4", "2 4");
    CHECK("%a: f32[C:2]", "%r = pad %a {label=A, to=C, start=1, size=4} : f32[A:4]", "1 2", "0 1 2 0");
    CHECK("%a: f32[B:2]", "%r = pad %a {label=A, start=1, size=2} : f32[A:2, B:2]", "1 2", "0 0 1 2");
    CHECK("%a: f32[V:3, M:2], %i: i32[S:4]", "%r = gather %a, %i {label=V} : f32[S:4, M:2]", "1 2 3 4 5 6 2 0 3 -1",
          "5 6 1 2 0 0 0 0");
    CHECK("%a: f32[B:2, V:3], %i: i32[B:2]", "%r = gather %a, %i {label=V} : f32[B:2]", "1 2 3 4 5 6 2 0", "3 4");
    CHECK("%a: f32[S:4], %i: i32[S:4]", "%r = scatter %a, %i {label=V, labels=(V), size=2} : f32[V:2]",
          "1 2 3 4 0 1 0 2", "4 2");
    CHECK("%a: f32[B:2, S:2], %i: i32[S:2]", "%r = scatter %a, %i {label=V, labels=(V, B), size=2} : f32[V:2, B:2]",
          "1 2 3 4 1 1", "0 0 3 7");
    CHECK("%x: f32[V:3], %i: i32[S:3], %v: f32[S:3]", "%r = update %x, %i, %v {label=V} : f32[V:3]",
          "1 2 3 0 0 5 7 8 9", "8 2 3");
    CHECK("%x: f32[V:2, B:2], %i: i32[], %v: f32[B:2]", "%r = update %x, %i, %v {label=V} : f32[V:2, B:2]",
          "1 2 3 4 1 8 9", "1 2 8 9");
}

/* y = carried + x * factor, carried on; the last carried value and all that came before it. */
#define LOOP(reverse)                                                                            \
    "moecc-ir 1 ANNOTATED\nmesh []\n"                                                            \
    "entry \"f\" (%x: f32[l:3, A:2], %c: f32[A:2], %f: f32[]) -> (\"c\", \"before\", \"n\") {\n" \
    "  %r, %y, %z = loop %x, %c, %f {label=l, trip=3, xs=1, carry=1" reverse                     \
    "} : f32[A:2], f32[l:3, A:2], i32[l:3] {\n"                                                  \
    "  ^(%n: i32[], %xi: f32[A:2], %ci: f32[A:2], %fi: f32[]):\n"                                \
    "    %p = mul %xi, %fi : f32[A:2]\n"                                                         \
    "    %s = add %ci, %p : f32[A:2]\n"                                                          \
    "    yield %s, %ci, %n\n"                                                                    \
    "  }\n"                                                                                      \
    "  return %r, %y, %z\n}\n"

static void loops(void **state) {
    (void)state;
    assert_string_equal(run(LOOP(""), "1 2 3 4 5 6 100 200 10"), "190 320 | 100 200 110 220 140 260 | 0 1 2");
    assert_string_equal(run(LOOP(", reverse=true"), "1 2 3 4 5 6 100 200 10"),
                        "190 320 | 180 300 150 260 100 200 | 0 1 2");
    /* carried values that change places */
    assert_string_equal(run("moecc-ir 1 ANNOTATED\nmesh []\nentry \"f\" (%a: f32[], %b: f32[]) -> (\"a\", \"b\") {\n"
                            "  %r, %s = loop %a, %b {trip=3, carry=2} : f32[], f32[] {\n"
                            "  ^(%n: i32[], %x: f32[], %y: f32[]):\n    yield %y, %x\n  }\n  return %r, %s\n}\n",
                            "1 2"),
                        "2 | 1");
}

static void rounding(void **state) {
    (void)state;
    static const struct {
        const char *type, *number, *want;
    } cases[] = {
        {"f32", "0.1", "0.1000000015"},
        {"bf16", "1.00390625", "1"},
        {"bf16", "1.01171875", "1.015625"},
        {"bf16", "3.4e38", "inf"},
        {"f16", "65504", "65504"},
        {"f16", "65520", "inf"},
        {"f16", "5.9604644775390625e-8", "5.960464478e-08"},
        {"f16", "2.9e-8", "0"},
        {"f16", "2049", "2048"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *text =
            arena_printf(arena, "moecc-ir 1 ANNOTATED\nmesh []\nentry \"f\" (%%a: %s[]) -> (\"r\") {\nreturn %%a\n}\n",
                         cases[i].type);
        const Module *m = parse(text);
        EvalOptions opt = {.f64 = false};
        EvalState vars = eval_init(m, arena, &opt);
        const char *error = NULL;
        const Func *f = m->funcs.at[0];
        const Tensor *r = eval_func(m, f, arguments(f, cases[i].number), &vars, &opt, arena, &error);
        assert_string_equal(arena_printf(arena, "%.10g", r[0].at[0]), cases[i].want);
    }
}

static void variables(void **state) {
    (void)state;
    const Module *m = parse(
        "moecc-ir 1 ANNOTATED\nmesh []\n"
        "param \"p\" : f32[A:2] = const(1)\nstate \"s\" : i32[] = const(5)\n"
        "param \"w.{}\" : f32[l:2, A:2] = normal(2) stacked(3, 4)\nparam \"w.7\" : f32[A:2] = normal(2)\n"
        "entry \"f\" () -> (\"s\") {\n"
        "  %s = read {var=\"s\"} : i32[]\n  %one = const {value=1, dtype=i32} : i32[]\n"
        "  %t = add %s, %one : i32[]\n  write %t {var=\"s\"}\n"
        "  %u = read {var=\"s\"} : i32[]\n  return %u\n}\n");
    EvalOptions opt = {.seed = 11};
    EvalState vars = eval_init(m, arena, &opt);
    /* a read sees the start of the call, wherever it stands */
    assert_string_equal(run_with(m, "", &opt, &vars), "5");
    assert_string_equal(run_with(m, "", &opt, &vars), "6");
    assert_string_equal(tensor_text(&vars.var[0]), "1 1");
    /* slice 1 of the stack is file tensor w.7 */
    assert_true(vars.var[2].at[2] == vars.var[3].at[0] && vars.var[2].at[3] == vars.var[3].at[1]);
    assert_true(vars.var[2].at[0] != vars.var[2].at[2]);
}

/* ---- several devices ------------------------------------------------------------------------------------------------
 */

/* A function on four devices. */
static const char *many(const char *phase, const char *args, const char *lines) {
    return arena_printf(arena, "moecc-ir 1 %s\nmesh [x=2, y=2]\nentry \"f\" (%s) -> (\"r\")%s {\n%s\nreturn %%r\n}\n",
                        phase, args, strcmp(phase, "PLANNED") == 0 ? " arena 256" : "", lines);
}

static void devices_see_their_blocks(void **state) {
    (void)state;
    /* indices, random numbers and one-hots go by the global index */
    assert_string_equal(run(many("LOCAL", "", "%r = iota {dims=(A:8)} : i32[A:8@(y, x)]"), ""), "0 1 2 3 4 5 6 7");
    assert_string_equal(run(many("LOCAL", "%a: i32[]", "%r = one_hot %a {label=A, size=4} : bool[A:4@x]"), "2"),
                        "0 0 1 0");
    const char *draw = "%%r = random %%a, %%a {kind=normal, site=7, dims=(A:4, B:2)} : f32[A:4%s, B:2%s]";
    const char *one = run(many("LOCAL", "%a: i32[]", arena_printf(arena, draw, "", "")), "1");
    const char *two = run(many("LOCAL", "%a: i32[]", arena_printf(arena, draw, "@y", "@x")), "1");
    assert_string_equal(one, two);
    /* a gather from a split axis reads 0 elsewhere; a scatter into one writes its part */
    assert_string_equal(run(many("PLACED", "%a: f32[V:4@x], %i: i32[S:3]",
                                 "%g = gather %a, %i {label=V} : f32[S:3] partial(sum: x)\n"
                                 "%r = all_reduce %g {kind=sum, axes=x} : f32[S:3]"),
                            "1 2 3 4 3 0 9"),
                        "4 1 0");
    assert_string_equal(run(many("LOCAL", "%a: f32[S:3], %i: i32[S:3]",
                                 "%r = scatter %a, %i {label=V, labels=(V), size=4} : f32[V:4@(x, y)]"),
                            "1 2 3 3 0 3"),
                        "2 0 0 4");
}

static void devices_exchange(void **state) {
    (void)state;
#define A4 "1 2 3 4"
#define AB "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16"
    assert_string_equal(
        run(many("PLACED", "%a: f32[A:4@(x, y)]", "%r = all_gather %a {label=A, axes=y} : f32[A:4@x]"), A4), A4);
    assert_string_equal(
        run(many("PLACED", "%a: f32[A:4@(x, y)]", "%r = all_gather %a {label=A, axes=(x, y)} : f32[A:4]"), A4), A4);
    assert_string_equal(
        run(many("PLACED", "%a: f32[A:4@x]", "%r = shard_slice %a {to=A, axes=y} : f32[A:4@(x, y)]"), A4), A4);
    assert_string_equal(run(many("PLACED", "%a: f32[A:4@(x, y), B:4]",
                                 "%r = all_to_all %a {label=A, to=B, axes=y} : f32[A:4@x, B:4@y]"),
                            AB),
                        AB);
    assert_string_equal(run(many("PLACED", "%a: f32[A:4, B:4@(x, y)]",
                                 "%r = all_to_all %a {label=B, to=A, axes=(x, y)} : f32[A:4@(x, y), B:4]"),
                            AB),
                        AB);
    assert_string_equal(run(many("PLACED", "%a: f32[A:4@(x, y)]", "%r = permute %a : f32[A:4@(y, x)]"), A4), A4);
    assert_string_equal(run(many("PLACED", "%a: f32[A:4@x]", "%r = permute %a : f32[A:4@y]"), A4), A4);
    assert_string_equal(run(many("PLACED", "%a: f32[K:4@(x, y), B:4]",
                                 "%p = reduce %a {kind=max, labels=(K)} : f32[B:4] partial(max: (x, y))\n"
                                 "%q = reduce_scatter %p {kind=max, to=B, axes=y} : f32[B:4@y] partial(max: x)\n"
                                 "%r = all_reduce %q {kind=max, axes=x} : f32[B:4@y]"),
                            AB),
                        "13 14 15 16");
    assert_string_equal(run(many("LOCAL", "%a: f32[K:4@(x, y), B:4]",
                                 "%p = reduce %a {kind=sum, labels=(K)} : f32[B:4] partial(sum: (x, y))\n"
                                 "%r = reshard %p : f32[B:4@(y, x)]"),
                            AB),
                        "28 32 36 40");
}

/* ---- what is refused
 * ------------------------------------------------------------------------------------------------- */

static void assert_says(const char *text, const char *numbers, const char *part) {
    const char *said = run(text, numbers);
    if (strstr(said, part) == NULL) fail_msg("said: %s\nwanted: %s", said, part);
}

static void faults_are_sentences(void **state) {
    (void)state;
    assert_says(
        "moecc-ir 1 ANNOTATED\nmesh []\nentry \"f\" (%a: f32[]) -> (\"r\") {\n"
        "%r = grad %a, %a : f32[]\nreturn %r\n}\n",
        "1", "test.ir:4:1: grad: a gradient is not evaluated");
    assert_says(many("LOCAL", "", "%r = const {dims=(A:1099511627776)} : f32[A:1099511627776]"), "", "limit of memory");
    assert_says(
        "moecc-ir 1 ANNOTATED\nmesh []\nparam \"p\" : f32[A:1099511627776] = const(0)\n"
        "entry \"f\" () -> () {\nreturn\n}\n",
        "", "variables exceed");
    assert_says(
        "moecc-ir 1 ANNOTATED\nmesh []\nentry \"f\" (%a: f32[]) -> (\"r\") {\n"
        "%r = loop %a {trip=1099511627776, carry=1} : f32[] {\n^(%n: i32[], %x: f32[]):\n"
        "%s = const {dims=(A:100000)} : f32[A:100000]\nyield %x\n}\nreturn %r\n}\n",
        "1", "limit of element operations");
}

/* b = exp a; c = exp a; r = b - c, with c and r at these offsets, a at 0 and b at 64. */
static const char *planned(int c, int r) {
    return many("PLANNED", "%a: f32[A:4@x] at 0",
                arena_printf(arena,
                             "%%b = exp %%a : f32[A:4@x] at 64\n"
                             "%%c = exp %%a : f32[A:4@x] at %d\n"
                             "%%r = sub %%b, %%c : f32[A:4@x] at %d",
                             c, r));
}

static void overlaps_are_found(void **state) {
    (void)state;
    assert_string_equal(run(planned(128, 192), A4), "0 0 0 0");
    assert_says(planned(68, 192), A4, "element 1 of %b, at 64 on device 0, was overwritten before this use");
    /* in place is well, for an element-wise op */
    assert_string_equal(run(planned(128, 64), A4), "0 0 0 0");
    assert_says(planned(128, 68), A4, "result 1 overwrites operand 1 while it is read");
}

static void stages_compare(void **state) {
    (void)state;
#define STAGE(op)                                                                         \
    "moecc-ir 1 ANNOTATED\nmesh []\nparam \"w\" : f32[A:4] = normal(1)\n"                 \
    "entry \"f\" (%a: f32[A:4]) -> (\"r\") {\n%w = read {var=\"w\"} : f32[A:4]\n%r = " op \
    " %a, %w : f32[A:4]\nreturn %r\n}\n"
    CompareOptions opt = {.eval = {.f64 = true}, .tolerance = 1e-12};
    Compare *c = compare_new(arena, &opt);
    assert_null(compare_stage(c, parse(STAGE("add"))));
    assert_null(compare_stage(c, parse(STAGE("add"))));
    const char *said = compare_stage(c, parse(STAGE("sub")));
    assert_non_null(said);
    assert_non_null(strstr(said, "f: call 1: result 'r' differs: element "));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(elements, set_up, tear_down),
        cmocka_unit_test_setup_teardown(sources, set_up, tear_down),
        cmocka_unit_test_setup_teardown(philox_is_the_published_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(random_is_standard, set_up, tear_down),
        cmocka_unit_test_setup_teardown(contractions_and_folds, set_up, tear_down),
        cmocka_unit_test_setup_teardown(moves, set_up, tear_down),
        cmocka_unit_test_setup_teardown(loops, set_up, tear_down),
        cmocka_unit_test_setup_teardown(rounding, set_up, tear_down),
        cmocka_unit_test_setup_teardown(variables, set_up, tear_down),
        cmocka_unit_test_setup_teardown(devices_see_their_blocks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(devices_exchange, set_up, tear_down),
        cmocka_unit_test_setup_teardown(faults_are_sentences, set_up, tear_down),
        cmocka_unit_test_setup_teardown(overlaps_are_found, set_up, tear_down),
        cmocka_unit_test_setup_teardown(stages_compare, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
