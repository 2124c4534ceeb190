/* Arenas, vectors, names, strings, diagnostics: what ir/support promises. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "support/arena.h"
#include "support/diag.h"
#include "support/intern.h"
#include "support/str.h"
#include "support/vec.h"

static void objects_are_zero_aligned_and_apart(void **state) {
    Arena *a = arena_new();
    char *last = NULL;
    for (size_t n = 1; n < 100000; n = n * 3 / 2 + 1) {
        char *p = arena_alloc(a, n);
        assert_int_equal((uintptr_t)p % _Alignof(max_align_t), 0);
        for (size_t i = 0; i < n; i++) assert_int_equal(p[i], 0);
        memset(p, 7, n);
        if (last != NULL) assert_int_equal(*last, 7);
        last = p;
    }
    arena_reset(a);
    char *again = arena_alloc(a, 5000);
    for (int i = 0; i < 5000; i++) assert_int_equal(again[i], 0);
    arena_free(a);
    arena_free(NULL);
}

static void text_helpers(void **state) {
    Arena *a = arena_new();
    assert_string_equal(arena_strdup(a, "abc"), "abc");
    assert_string_equal(arena_printf(a, "%s-%d", "x", 7), "x-7");
    assert_memory_equal(arena_copy(a, "\1\2\3", 3), "\1\2\3", 3);
    arena_free(a);
}

static void vectors_grow_and_keep(void **state) {
    Arena *a = arena_new();
    VEC(int) v = {0};
    for (int i = 0; i < 1000; i++) vec_push(a, v, i * i);
    assert_int_equal(v.n, 1000);
    for (int i = 0; i < v.n; i++) assert_int_equal(v.at[i], i * i);
    arena_free(a);
}

static void equal_names_are_one_pointer(void **state) {
    char name[] = "H+1";
    const char *a = intern(name);
    name[0] = 'X';
    assert_string_equal(a, "H+1");
    assert_ptr_equal(a, intern_n("H+1 and more", 3));
    assert_ptr_equal(a, intern_printf("%c+%d", 'H', 1));
    assert_ptr_not_equal(a, intern("H+2"));
    assert_ptr_equal(intern(""), intern_n("x", 0));
    const char *many[3000];
    for (int i = 0; i < 3000; i++) many[i] = intern_printf("name%d", i);
    for (int i = 0; i < 3000; i++) assert_ptr_equal(many[i], intern_printf("name%d", i));
}

static void strings_grow_and_quote(void **state) {
    Arena *a = arena_new();
    Str s = str_new(a);
    for (int i = 0; i < 100; i++) str_addf(&s, "%d,", i);
    assert_int_equal(s.n, 290);
    assert_int_equal(strlen(s.at), 290);
    Str q = str_new(a);
    str_add_quoted(&q, "a\"b\\c\n?\303\2441");
    assert_string_equal(q.at, "\"a\\042b\\134c\\012\\077\\303\\2441\"");
    arena_free(a);
}

static void near_words_are_found(void **state) {
    static const char *const words[] = {"einsum", "softmax", "reduce", "relu"};
    assert_string_equal(str_nearest("einsun", words, 4), "einsum");
    assert_string_equal(str_nearest("enisum", words, 4), "einsum");
    assert_string_equal(str_nearest("sofmax", words, 4), "softmax");
    assert_null(str_nearest("gather", words, 4));
    assert_null(str_nearest("x", words, 4));
    assert_null(str_nearest("", words, 4));
}

static void locations_have_lines(void **state) {
    diag_reset();
    static const char text[] = "one\ntwo words\n";
    uint32_t file = diag_add_file("a.moe", text, sizeof text - 1);
    assert_string_equal(diag_where((Loc){file, 8, 13}), "a.moe:2:5");
    assert_string_equal(diag_where((Loc){file, 0, 1}), "a.moe:1:1");
    assert_string_equal(diag_where((Loc){file, 9999, 9999}), "a.moe:3:1");
    assert_string_equal(diag_where((Loc){0}), "<no location>");
    Loc both = loc_join((Loc){file, 4, 7}, (Loc){file, 1, 2});
    assert_int_equal(both.begin, 1);
    assert_int_equal(both.end, 7);
    assert_int_equal(loc_join((Loc){0}, both).end, 7);
    assert_int_equal(diag_errors(), 0);
    diag_reset();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(objects_are_zero_aligned_and_apart),
        cmocka_unit_test(text_helpers),
        cmocka_unit_test(vectors_grow_and_keep),
        cmocka_unit_test(equal_names_are_one_pointer),
        cmocka_unit_test(strings_grow_and_quote),
        cmocka_unit_test(near_words_are_found),
        cmocka_unit_test(locations_have_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
