/* The report of a small placed program on a described machine: rows of the text, members of the JSON. */
#include <jansson.h>

#include "irtest.h"
#include "passes.h"

static const char program[] =
    "moecc-ir 1 PLACED\n"
    "mesh [x=2, y=4]\n"
    "param \"w\" : f32[L:3, K:16@y, N:8] = normal(0.1) trained\n"
    "state \"n\" : i32[] = const(0)\n"
    "entry \"f\" (%a: f32[B:8@x, K:16]) -> (\"r\", \"s\") {\n"
    "  %w = read {var=\"w\"} : f32[L:3, K:16@y, N:8]\n"
    "  %g = all_gather %a {label=B, axes=x} : f32[B:8, K:16]\n"
    "  %0 = loop %w, %g {label=L, trip=3, xs=1} : f32[L:3, B:8, N:8] {\n"
    "  ^(%i: i32[], %v: f32[K:16@y, N:8], %h: f32[B:8, K:16]):\n"
    "    %k = shard_slice %h {to=K, axes=y} : f32[B:8, K:16@y]\n"
    "    %p = einsum %k, %v {labels=(B, N)} : f32[B:8, N:8] partial(sum: y)\n"
    "    %q = all_reduce %p {kind=sum, axes=y} : f32[B:8, N:8]\n"
    "    return %q\n"
    "  }\n"
    "  return %g, %0\n"
    "}\n";

static char *report(Arena *a, const char *topology, bool json) {
    diag_reset();
    Module *m = module_parse(a, "p.ir", program, sizeof program - 1);
    assert_non_null(m);
    const char *error = NULL;
    const Topology *t = topology_load(a, topology, &error);
    assert_non_null(t);
    return plan_report(m, t, NULL, json, a);
}

static void has(const char *text, const char *part) {
    if (strstr(text, part) == NULL) fail_msg("no '%s' in\n%s", part, text);
}

static void text_names_every_cost(void **state) {
    Arena *a = arena_new();
    const char *text = report(a, "pack:2 core:4 pu:1", false);
    has(text, "mesh [x=2, y=4]: 8 devices on 8 cores, 2 packages, 1 machine\n");
    has(text, "  x               2  within one machine\n");
    has(text, "  y               4  within one package\n");
    has(text, "           384  param w: f32[L:3, K:16@y, N:8]\n");
    has(text, "           388  all variables\n");
    has(text,
        "           256       1  all_gather (x)                  machine     p.ir:7:3 a\n"
        "                argument a gives B@x; the loop takes whole\n");
    has(text,
        "           384       3  all_reduce (y)                  package     p.ir:12:5 p\n"
        "                einsum gives terms of the sum over K@y; the loop's next turn takes whole\n");
    has(text, "  receives 1408 bytes, computes 1536 FLOP\n");
    assert_null(strstr(text, "would save"));
    /* On this machine neighbours along y are far apart, and moving x inwards costs less than it saves. */
    has(report(a, "pack:4 core:2 pu:1", false), "  the order [y=4, x=2] would save ");
    arena_free(a);
}

static const json_t *at(const json_t *j, const char *key) {
    const json_t *member = json_object_get(j, key);
    if (member == NULL) fail_msg("no member %s", key);
    return member;
}

static void json_says_the_same(void **state) {
    Arena *a = arena_new();
    json_error_t error;
    json_t *j = json_loads(report(a, "pack:2 core:4 pu:1", true), JSON_REJECT_DUPLICATES, &error);
    assert_non_null(j);
    assert_int_equal(json_integer_value(at(j, "devices")), 8);
    assert_int_equal(json_integer_value(at(j, "variables_bytes")), 388);
    const json_t *f = json_array_get(at(j, "functions"), 0), *colls = at(f, "collectives");
    assert_true(json_is_null(at(f, "arena_bytes")));
    assert_int_equal(json_array_size(colls), 2);
    const json_t *reduce = json_array_get(colls, 1);
    assert_string_equal(json_string_value(at(reduce, "kind")), "all_reduce");
    assert_string_equal(json_string_value(json_array_get(at(reduce, "axes"), 0)), "y");
    assert_string_equal(json_string_value(at(reduce, "level")), "package");
    assert_int_equal(json_integer_value(at(reduce, "bytes")), 384);
    assert_int_equal(json_integer_value(at(reduce, "times")), 3);
    const json_t *why = at(reduce, "why");
    assert_string_equal(json_string_value(at(why, "giver")), "einsum");
    assert_string_equal(json_string_value(at(why, "gives")), "terms of the sum over K@y");
    assert_string_equal(json_string_value(at(why, "takes")), "whole");
    assert_true(json_is_null(at(why, "giver_annotated")));
    assert_true(json_is_null(at(f, "peak")));
    assert_true(json_number_value(at(at(f, "seconds"), "total")) > 0);
    json_decref(j);
    arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(text_names_every_cost), cmocka_unit_test(json_says_the_same)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
