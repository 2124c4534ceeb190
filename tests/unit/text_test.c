/* text_test.c: the text form reads back to the same text; texts that are wrong are told where; modules that break a
 * promise of their phase are found by the verifier; numpy files. */
#include "irtest.h"

#include <fcntl.h>
#include <math.h>
#include <unistd.h>

#include "support/npy.h"

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

/* Parses without messages on the terminal. */
static Module *parse_quietly(const char *text, size_t bytes) {
    fflush(stderr);
    int was = dup(STDERR_FILENO), null = open("/dev/null", O_WRONLY);
    dup2(null, STDERR_FILENO);
    Module *m = module_parse(arena, "test.ir", text, bytes);
    fflush(stderr);
    dup2(was, STDERR_FILENO);
    close(was);
    close(null);
    return m;
}

/* ---- there and back -------------------------------------------------------------------------------------------------
 */

/* Something of everything. */
static const char *const annotated =
    "moecc-ir 1 ANNOTATED\n"
    "mesh [data=2, expert=4]\n"
    "decode \"loss\"\n"
    "prefill \"loss\"\n"
    "param \"block.{}.wi\" : f32[l:2, E:8@expert, M:4@()] = normal(0.02) stacked(0, 1) trained from \"h.{}.w\\077\"\n"
    "param \"b\" : bf16[\"S+1\":8@(data, expert)] = uniform(1e-30)\n"
    "state \"n\" : i32[] = const(-3)\n"
    "\n"
    "entry \"loss\" (%x: f32[B:8@data, M:4], %0: i32[B:8]) -> (\"loss\", \"all of them\") {\n"
    "  %w = read {var=\"block.{}.wi\"} : f32[l:2, E:8, M:4]\n"
    "  %1 = const {value=-inf, dtype=f16} : f16[]\n"
    "  %2 = const {value=nan} : f32[]\n"
    "  %3 = const {value=0.30000000000000004} : f32[]\n"
    "  %4 = const {value=-0} : f32[]\n"
    "  %5 = annotate %x : f32[B:8@(), M:4@expert]\n"
    "  %6 = slice %5 {label=M, to=\"S+1\", start=1, size=2} : f32[B:8, \"S+1\":2]\n"
    "  %7, %y = loop %w, %5 {label=l, trip=2, xs=1, carry=1, reverse=true} : f32[B:8, M:4], f32[l:2, E:8, M:4] {\n"
    "  ^(%8: i32[], %wi: f32[E:8, M:4], %9: f32[B:8, M:4]):\n"
    "    %10 = einsum %9, %wi {labels=(B, E)} : f32[B:8, E:8]\n"
    "    %11 = einsum %10, %wi {labels=(B, M)} : f32[B:8, M:4]\n"
    "    yield %11, %wi\n"
    "  }\n"
    "  %12 = relabel %7 {labels=(B, M), dims=(G:2, T:16)} : f32[G:2, T:16]\n"
    "  %13 = one_hot %0 {label=V, size=3} : bool[B:8, V:3]\n"
    "  %14 = iota {dims=(S:5)} : i32[S:5]\n"
    "  return %12, %y\n"
    "}\n"
    "\n"
    "train \"loss\" () -> () {\n"
    "  %n = read {var=\"n\"} : i32[]\n"
    "  write %n {var=\"n\"}\n"
    "  return\n"
    "}\n";

static const char *const planned =
    "moecc-ir 1 PLANNED\n"
    "mesh [x=2, y=2]\n"
    "param \"w\" : f32[M:4@y] = normal(0.02) at 0\n"
    "\n"
    "entry \"f\" (%a: f32[K:4@(x, y), M:4] at 64) -> (\"r\") arena 256 {\n"
    "  %w = read {var=\"w\"} : f32[M:4@y] at 0\n"
    "  %s = reduce %a {labels=(K), kind=sum} : f32[M:4] partial(sum: (x, y)) at 128\n"
    "  %0 = reduce_scatter %s {to=M, kind=sum, axes=y} : f32[M:4@y] partial(sum: x) at 192\n"
    "  %1 = all_reduce %0 {kind=sum, axes=x} : f32[M:4@y] at 192\n"
    "  %r = fused %1, %w : f32[M:4@y] at 128 {\n"
    "  ^(%2: f32[M:4@y], %3: f32[M:4@y]):\n"
    "    %4 = add %2, %3 : f32[M:4@y]\n"
    "    yield %4\n"
    "  }\n"
    "  return %r\n"
    "}\n";

static void text_reads_back(void **state) {
    (void)state;
    const char *const texts[] = {annotated, planned};
    for (int i = 0; i < 2; i++) {
        Module *m = module_parse(arena, "test.ir", texts[i], strlen(texts[i]));
        assert_non_null(m);
        assert_string_equal(module_print(m, arena, (PrintOptions){0}), texts[i]);
        assert_string_equal(module_print(module_clone(m, arena), arena, (PrintOptions){0}), texts[i]);
        const char *wrong = module_verify(m, arena);
        if (wrong != NULL) fail_msg("%s", wrong);
    }
}

/* Two values of one name keep it in one place; what is no identifier has none. */
static void names_are_unique(void **state) {
    (void)state;
    Module *m = module_parse(arena, "test.ir", planned, strlen(planned));
    Inst *first = m->funcs.at[0]->body->first;
    first->next->out[0]->name = first->out[0]->name;
    first->next->next->out[0]->name = "no identifier";
    const char *text = module_print(m, arena, (PrintOptions){0});
    assert_non_null(strstr(text, "  %0 = reduce %a "));
    assert_non_null(strstr(text, "  %1 = reduce_scatter %0 "));
    Module *again = module_parse(arena, "again.ir", text, strlen(text));
    assert_non_null(again);
    assert_string_equal(module_print(again, arena, (PrintOptions){0}), text);
}

static void locations_read_back(void **state) {
    (void)state;
    Module *m = module_parse(arena, "test.ir", annotated, strlen(annotated));
    const char *text = module_print(m, arena, (PrintOptions){.locs = true});
    assert_non_null(strstr(text, "file 1 \"test.ir\"\nmesh"));
    assert_non_null(strstr(text, ": f32[B:8, \"S+1\":2] loc 1:"));
    Module *again = module_parse(arena, "again.ir", text, strlen(text));
    assert_non_null(again);
    assert_string_equal(module_print(again, arena, (PrintOptions){.locs = true}), text);
    const Inst *a = m->funcs.at[0]->body->first, *b = again->funcs.at[0]->body->first;
    assert_int_equal(a->loc.begin, b->loc.begin);
    assert_string_equal(diag_file_path(b->loc.file), "test.ir");
    /* without them an instruction is where its line begins */
    assert_string_equal(diag_where(a->loc), "test.ir:10:3");
}

/* ---- wrong texts ----------------------------------------------------------------------------------------------------
 */

/* Every text is one fault away from a right one: nothing may crash, and what is refused has a message. */
static void no_text_crashes(void **state) {
    (void)state;
    const char *const texts[] = {annotated, planned};
    for (int t = 0; t < 2; t++) {
        size_t n = strlen(texts[t]);
        for (size_t i = 0; i < n; i++)
            for (int change = 0; change < 4; change++) {
                Arena *kept = arena;
                arena = arena_new();
                char *text = arena_strdup(arena, texts[t]);
                size_t bytes = n;
                if (change == 0) bytes = i; /* cut off */
                if (change == 1) memmove(text + i, text + i + 1, n - i), bytes--;
                if (change == 2) text[i] = '0';
                if (change == 3) text[i] = (char)(text[i] ^ 0x80);
                diag_reset();
                const Module *m = parse_quietly(arena_copy(arena, text, bytes), bytes);
                assert_true(m != NULL || diag_errors() == 1);
                if (m != NULL) module_verify(m, arena);
                diag_reset();
                arena_free(arena);
                arena = kept;
            }
    }
}

static void nesting_is_bounded(void **state) {
    (void)state;
    Str s = str_new(arena);
    str_add(&s, "moecc-ir 1 ANNOTATED\nentry \"f\" (%a: f32[]) -> (\"r\") {\n");
    for (int i = 0; i < 100000; i++)
        str_add(&s, "%r = loop %a {trip=1, carry=1} : f32[] {\n^(%n: i32[], %a: f32[]):\n");
    assert_null(parse_quietly(s.at, s.n));
    assert_int_equal(diag_errors(), 1);
}

/* ---- the verifier ---------------------------------------------------------------------------------------------------
 */

typedef struct Broken {
    const char *phase, *text, *sentence;
} Broken;

#define FUNC(args, results, lines) "entry \"f\" (" args ") -> (" results ") {\n" lines "\n}\n"

static const Broken broken[] = {
    {"SHARDED", FUNC("%a: f32[A:4@x, B:4@x]", "", "return"), "mesh axis x is used twice in one type"},
    {"SHARDED", FUNC("%a: f32[A:3@x]", "", "return"), "label A of size 3 does not divide over its mesh axes"},
    {"ANNOTATED", FUNC("%a: f32[A:4] partial(sum: x)", "", "return"), "partial before SHARDED"},
    {"ANNOTATED", FUNC("%a: f32[A:4]", "", "%b = exp %a : f32[A:4@x]\nreturn"), "only `annotate` does that"},
    {"SHARDED", FUNC("%a: f32[A:4]", "", "%b = annotate %a : f32[A:4@x]\nreturn"), "may not exist in this phase"},
    {"LOCAL", FUNC("%a: f32[A:4]", "", "%b = all_gather %a {label=A, axes=x} : f32[A:4]\nreturn"),
     "may not exist in this phase"},
    {"LOCAL", FUNC("%a: f32[A:4@x]", "", "%b = exp %a : f32[A:4]\nreturn"), "label A is split over"},
    {"LOCAL",
     FUNC("%a: f32[A:4@x]", "\"r\"", "%b = reduce %a {kind=sum, labels=(A)} : f32[] partial(sum: x)\nreturn %b"),
     "result 1 is partial"},
    {"LOCAL", FUNC("%a: f32[]", "", "%b = read {var=\"v\"} : f32[A:4]\nreturn"), "is used as f32[A:4]"},
    {"PLACED", FUNC("%a: f32[A:4@x]", "", "%b = all_gather %a {label=A, axes=y} : f32[A:4]\nreturn"),
     "its attributes do not lead from f32[A:4@x] to f32[A:4]"},
    {"PLACED", FUNC("%a: f32[A:4] partial(max: x)", "", "%b = all_reduce %a {kind=sum, axes=x} : f32[A:4]\nreturn"),
     "its attributes do not lead"},
    {"PLACED", FUNC("%a: f32[A:4@x, B:4]", "", "%b = permute %a : f32[A:4, B:4]\nreturn"), "its blocks differ in size"},
    {"LOCAL",
     FUNC("%a: f32[l:2@x]", "",
          "%b = loop %a {label=l, trip=2, xs=1} : f32[l:2@x] {\n^(%n: i32[], %c: f32[]):\n"
          "yield %c\n}\nreturn"),
     "differ in sharding"},
    {"ANNOTATED", FUNC("%a: f32[A:4]", "", "write %a {var=\"v\"}\nwrite %a {var=\"v\"}\nreturn"),
     "'v' is written twice"},
    {"ANNOTATED", "decode \"g\"\n", "'g', which generates, is no entry"},
};

static void verifier_finds(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        const char *text =
            arena_printf(arena, "moecc-ir 1 %s\nmesh [x=2, y=2]\nparam \"v\" : f32[A:4@x] = const(0)\n%s",
                         broken[i].phase, broken[i].text);
        const Module *m = module_parse(arena, "test.ir", text, strlen(text));
        assert_non_null(m);
        const char *said = module_verify(m, arena);
        if (said == NULL || strstr(said, broken[i].sentence) == NULL)
            fail_msg("%s\nsaid: %s\nwanted: %s", text, said == NULL ? "nothing" : said, broken[i].sentence);
    }
}

/* What a text cannot say: broken links. */
static void verifier_finds_links(void **state) {
    (void)state;
    Module *m = module_parse(arena, "test.ir", planned, strlen(planned));
    Inst *read = m->funcs.at[0]->body->first, *reduce = read->next, *scatter = reduce->next;
    read->next = scatter;
    assert_non_null(module_verify(m, arena));
    read->next = reduce;
    assert_null(module_verify(m, arena));
    Value *was = reduce->in[0];
    reduce->in[0] = scatter->out[0];
    assert_non_null(strstr(module_verify(m, arena), "operand 1 is not defined above"));
    reduce->in[0] = was;
    scatter->out[0]->offset = 4096;
    assert_non_null(strstr(module_verify(m, arena), "outside the arena of 256"));
}

/* ---- numpy ----------------------------------------------------------------------------------------------------------
 */

static void npy_there_and_back(void **state) {
    (void)state;
    char path[] = "/tmp/text_test_XXXXXX";
    int file = mkstemp(path);
    assert_true(file >= 0);
    close(file);
    double numbers[] = {0, 1, -2, 1, 7, 1};
    for (int rank = 0; rank < 4; rank++)
        for (int type = NPY_f4; type <= NPY_b1; type++) {
            Npy a = {.type = (NpyType)type,
                     .rank = rank,
                     .size = {rank == 1 ? 6 : 1, 2, 3},
                     .n = rank == 1 || rank == 3 ? 6
                          : rank == 2            ? 2
                                                 : 1,
                     .at = numbers};
            assert_null(npy_write(arena, path, &a));
            Npy b;
            const char *wrong = npy_read(arena, path, &b);
            if (wrong != NULL) fail_msg("%s", wrong);
            assert_true(b.type == a.type && b.rank == a.rank && b.n == a.n);
            for (int i = 0; i < rank; i++) assert_true(b.size[i] == a.size[i]);
            for (int64_t i = 0; i < a.n; i++) assert_true(b.at[i] == (type == NPY_b1 ? numbers[i] != 0 : numbers[i]));
        }
    unlink(path);
}

static void npy_is_strict(void **state) {
    (void)state;
#define HEAD "\x93NUMPY\x01\x00"
    static const struct {
        const char *bytes;
        size_t n;
        const char *sentence;
    } cases[] = {
        {"", 0, "no .npy"},
        {HEAD "\x10", 9, "cut off"},
        {HEAD "\x02\x00{}", 12, "lacks"},
        {HEAD "\x30\x00{'descr': '>f4', 'fortran_order': False, 'sh':1}", 58, "element type"},
        {HEAD "\x3b\x00{'descr': '<f4', 'fortran_order': True, 'shape': (2,), }   \n12345678", 77, "Fortran"},
        {HEAD "\x3b\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }  \n1234567", 76, "ends before"},
        {HEAD "\x3b\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }  \n123456789", 78, "goes on"},
        {HEAD "\x3b\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2), }   \n12345678", 77, "malformed"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Npy a;
        const char *said = npy_parse(arena, arena_copy(arena, cases[i].bytes, cases[i].n), cases[i].n, &a);
        if (said == NULL || strstr(said, cases[i].sentence) == NULL)
            fail_msg("case %zu: said %s", i, said == NULL ? "nothing" : said);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(text_reads_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(names_are_unique, set_up, tear_down),
        cmocka_unit_test_setup_teardown(locations_read_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(no_text_crashes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nesting_is_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(verifier_finds, set_up, tear_down),
        cmocka_unit_test_setup_teardown(verifier_finds_links, set_up, tear_down),
        cmocka_unit_test_setup_teardown(npy_there_and_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(npy_is_strict, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
