/* parse_test.c: the grammar against itself, and its bounds.
 *
 * Whatever is parsed prints to text that parses to an equal tree; every .moe of the project is tried. Layout and
 * precedence are tables of texts that must mean the same. Limits are met from both sides. */
#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ast.h"
#include "support/str.h"

static Arena *arena;

static int setup(void **state) {
    (void)state;
    diag_reset();
    arena = arena_new();
    return 0;
}

static int teardown(void **state) {
    (void)state;
    arena_free(arena);
    return 0;
}

static Ast *parse_n(const char *text, size_t bytes) {
    return ast_parse(arena, diag_add_file("test.moe", text, bytes), text, bytes);
}

static Ast *parse(const char *text) {
    return parse_n(text, strlen(text));
}

/* `s` repeated n times between two texts. */
static char *repeated(const char *before, const char *s, int n, const char *after) {
    Str out = str_new(arena);
    str_add(&out, before);
    for (int i = 0; i < n; i++) str_add(&out, s);
    str_add(&out, after);
    return out.at;
}

/* ---- round trips ---- */

static void round_trip(const char *path) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    static char text[1 << 20];
    size_t n = fread(text, 1, sizeof text, f);
    fclose(f);
    Ast *tree = ast_parse(arena, diag_add_file(path, text, n), text, n);
    if (tree == NULL) fail_msg("%s does not parse", path);
    char *printed = ast_print(tree, arena);
    Ast *again = parse(printed);
    if (again == NULL || !ast_equal(tree, again)) fail_msg("%s: its printed text is another tree:\n%s", path, printed);
    assert_string_equal(printed, ast_print(again, arena));
}

static void test_round_trip(void **state) {
    (void)state;
    const char *patterns[] = {"tests/frontend/parse/*.moe", "frontend/std/*.moe", "examples/*.moe"};
    for (int i = 0; i < 3; i++) {
        glob_t found;
        if (glob(patterns[i], 0, NULL, &found) != 0) {
            assert_int_not_equal(i, 0);
            continue;
        }
        for (size_t k = 0; k < found.gl_pathc; k++) round_trip(found.gl_pathv[k]);
        globfree(&found);
    }
}

/* ---- the same by other means ---- */

static void same(const char *x, const char *y) {
    Ast *a = parse(x), *b = parse(y);
    if (a == NULL || b == NULL || !ast_equal(a, b)) fail_msg("not the same:\n%s\n---\n%s", x, y);
}

static void same_body(const char *x, const char *y) {
    same(arena_printf(arena, "fn f() {\n%s\n}", x), arena_printf(arena, "fn f() { %s }", y));
}

static void test_newlines(void **state) {
    (void)state;
    same_body("x = a +\n  b *\n\n c", "x = a + b * c");
    same_body("x = f(a,\n b\n ,c\n)\ny = 1", "x = f(a, b, c); y = 1");
    same_body("x = [a\n, b]\n\n\n", "x = [a, b]");
    same_body("x =\n 1 // one\n // two\n;;; y = 2", "x = 1; y = 2");
    same_body("if a {\n b = 1\n}\nelse\n{\n b = 2 }", "if a { b = 1 } else { b = 2 }");
    same_body("if a { b = 1 } // not yet over\n\n else if c { b = 2 }", "if a { b = 1 } else if c { b = 2 }");
    same_body("x = if a {\n1\n}\nelse {\n2\n} + 1", "x = if a { 1 } else { 2 } + 1");
    same_body("x = f(if a {\n1\n} else {\n2\n}, b\n)", "x = f(if a { 1 } else { 2 }, b)");
    same_body("x = a as (S ->\n T)\nx = a in \"b\"", "x = a as (S -> T); x = a in \"b\"");
    same("fn f(x: f32[])\n  -> f32[]\nmanual (a)\n{\n}\n", "fn f(x: f32[]) -> f32[] manual (a) { }");
    same("dim A = 1,\n  B = 2\ndim C = 3", "dim A = 1, B = 2; dim C = 3");
    same("dim A = 1\r\ndim B = 2\r\n", "dim A = 1\ndim B = 2");
    same(
        "\xef\xbb\xbf"
        "dim A = 1",
        "dim A = 1");
    same("", "\n\n;\n// nothing\n");
}

static void test_precedence(void **state) {
    (void)state;
    same_body("x = a + b * c ** d", "x = a + (b * (c ** d))");
    same_body("x = a - b - c / d / e", "x = (a - b) - ((c / d) / e)");
    same_body("x = a ** b ** c", "x = a ** (b ** c)");
    same_body("x = -a ** -b", "x = -(a ** (-b))");
    same_body("x = -a * b", "x = (-a) * b");
    same_body("x = not a < b and c == d or e", "x = ((not (a < b)) and (c == d)) or e");
    same_body("x = a + f(b) in \"s\" as (S -> T)", "x = a + ((f(b) in \"s\") as (S -> T))");
    same_body("x = -a[S: i]", "x = -(a[S: i])");
    same_body("x = each A: f(a) + 1", "x = each A: (f(a) + 1)");
}

/* ---- limits ---- */

static void refused(const char *text, size_t bytes) {
    diag_reset();
    assert_null(parse_n(text, bytes));
    assert_int_equal(diag_errors(), 1);
}

static void accepted(const char *text) {
    diag_reset();
    assert_non_null(parse(text));
}

static void test_nesting(void **state) {
    (void)state;
    int n = AST_MAX_NESTING - 1;
    accepted(arena_printf(arena, "%s1%s", repeated("const a = ", "(", n, ""), repeated("", ")", n, "")));
    const char *deep[] = {"(",  "[",        "f(",   "f(a + b * [",     "-", "not ", "a ** ",
                          "x[", "each A: ", "1 + ", "if a { b } else "};
    for (size_t i = 0; i < sizeof deep / sizeof *deep; i++) {
        char *text = repeated("const a = ", deep[i], 30000, "1");
        refused(text, strlen(text));
    }
    const char *blocks[] = {"if a {\n", "for i in 0..2 {\n", "scope \"s\" {", "if a { } else "};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
        char *text = repeated("fn f() {\n", blocks[i], 30000, "1");
        refused(text, strlen(text));
    }
    accepted(repeated("const a = 1", " + 1", AST_MAX_DEPTH - 10, ""));
    accepted(repeated("const a = [1", ", 1", 30000, "]"));
}

static void test_names(void **state) {
    (void)state;
    char *name = repeated("", "n", AST_MAX_NAME, ""), *longer = repeated("", "n", AST_MAX_NAME + 1, "");
    const char *forms[] = {"const %s = 1", "const a = \"%s\"", "import \"%s\" as b"};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        const char *hole = strstr(forms[i], "%s");
        int before = (int)(hole - forms[i]);
        accepted(arena_printf(arena, "%.*s%s%s", before, forms[i], name, hole + 2));
        char *text = arena_printf(arena, "%.*s%s%s", before, forms[i], longer, hole + 2);
        refused(text, strlen(text));
    }
    char *dotted = repeated("const a = b", ".b", 30000, "");
    refused(dotted, strlen(dotted));
    char *digits = repeated("const a = ", "1", 30000, "");
    refused(digits, strlen(digits));
}

static void test_bytes(void **state) {
    (void)state;
    static const char *const bad[] = {
        "// \xff",
        "// \xc0\x80",
        "// \xed\xa0\x80",
        "// \xf4\x90\x80\x80",
        "// \xe2\x82",
        "// \x01",
        "dim A = 1\rdim",
        "// \x7f",
        "// \xc2\x85",
        "// \xe2\x80\xae",
        "// \xf8\x88",
        "dim A\xc3\xa9 = 1",
        "// \xf0\x80\x80\x80",
        "import \"\x1b[31m\"",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) refused(bad[i], strlen(bad[i]));
    refused("// \0", 4);
    refused("dim A = 1\n\0", 11);
    accepted("// caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80\nimport \"caf\xc3\xa9\" as c");
    size_t big = AST_MAX_BYTES + 1;
    char *blank = calloc(1, big);
    memset(blank, '\n', big);
    refused(blank, big);
    diag_reset();
    assert_non_null(parse_n(blank, big - 1));
    free(blank);
}

static void test_errors_end(void **state) {
    (void)state;
    char *text = repeated("", "dim = 1\n", 1000, "");
    diag_reset();
    assert_null(parse(text));
    assert_int_equal(diag_errors(), DIAG_LIMIT);
}

static void test_places(void **state) {
    (void)state;
    const char *text = "fn f(x) {\n  y = a + g(b)\n}\n";
    const Ast *fn = parse(text)->at[0];
    const Ast *sum = fn->at[FN_BODY]->at[0]->at[ASSIGN_VALUES]->at[0];
    int line, col;
    const char *path;
    assert_true(diag_line_col(sum->at[1]->loc, &path, &line, &col));
    assert_int_equal(line, 2);
    assert_int_equal(col, 11);
    assert_int_equal(sum->loc.end - sum->loc.begin, strlen("a + g(b)"));
    assert_int_equal(fn->name_loc.begin, 3);
    assert_int_equal(fn->loc.end, strlen(text) - 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_newlines, setup, teardown),
        cmocka_unit_test_setup_teardown(test_precedence, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nesting, setup, teardown),
        cmocka_unit_test_setup_teardown(test_names, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_errors_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_places, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
