/* train_test.c: whole runs of a small program through the commands: training, resuming bit for bit, checkpoints that
 * are cut or tampered with, weights that do not fit, evaluation, generation, numpy in and out. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bigram.h"
#include "host.h"
#include "rt_test.h"

/* ---- helpers ------------------------------------------------------------------------------------------------ */

static char output[1 << 16], errors[1 << 12];

static void slurp(const char *path, char *to, size_t size) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(to, 1, size - 1, f);
    to[n] = 0;
    fclose(f);
}

static void spit(const char *path, const char *text, size_t n) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fwrite(text, 1, n, f);
    fclose(f);
}

/* Runs a command with stdout and stderr in files; its exit code. */
static int command(int (*run)(const MoeProgram *, const Options *), const Options *o) {
    fflush(stdout);
    fflush(stderr);
    int out = dup(1), err = dup(2);
    int a = open("out", O_CREAT | O_TRUNC | O_RDWR, 0600), b = open("err", O_CREAT | O_TRUNC | O_RDWR, 0600);
    dup2(a, 1);
    dup2(b, 2);
    int rc = run(&moe_program, o);
    fflush(stdout);
    fflush(stderr);
    dup2(out, 1);
    dup2(err, 2);
    close(out), close(err), close(a), close(b);
    slurp("out", output, sizeof output);
    slurp("err", errors, sizeof errors);
    return rc;
}

static Options options(void) {
    return (Options){.data = "text", .temperature = 1, .max_tokens = 20, .seed = 3};
}

/* "step N loss X accuracy Y" of a step, without the speed. */
static void step_line(int step, char *line) {
    char head[32];
    snprintf(head, sizeof head, "step %d ", step);
    const char *at = strstr(output, head);
    if (!at) fail_msg("no step %d in: %s", step, output);
    const char *end = strstr(at, " tokens/s");
    assert_non_null(end);
    snprintf(line, 200, "%.*s", (int)(end - at), at);
}

static void make_text(void) {
    char text[20000];
    static const char *const words[] = {"moe ", "expert ", "gate ", "shard ", "token ", "the ", "of ", "\n"};
    size_t n = 0;
    while (n < sizeof text - 16) n += (size_t)sprintf(text + n, "%s", words[test_random(8)]);
    spit("text", text, n);
}

/* ---- training ----------------------------------------------------------------------------------------------- */

static void test_learns(void **state) {
    Options o = options();
    o.steps = 40;
    o.save = "ck";
    assert_int_equal(command(command_train, &o), 0);
    char first[200], last[200];
    double a, b;
    step_line(1, first);
    step_line(40, last);
    assert_int_equal(sscanf(first, "step 1 loss %lf", &a), 1);
    assert_int_equal(sscanf(last, "step 40 loss %lf", &b), 1);
    if (fabs(a - log(256)) > 0.1 || b > 3) fail_msg("loss %g, then %g", a, b);
}

/* 20 steps, a checkpoint, 20 more: every line and every file as in a run of 40. */
static void test_resumes(void **state) {
    Options o = options();
    o.steps = 40;
    o.save = "whole";
    assert_int_equal(command(command_train, &o), 0);
    char want[41][200], got[200];
    for (int i = 1; i <= 40; i++) step_line(i, want[i]);
    o.steps = 20;
    o.save = "half";
    assert_int_equal(command(command_train, &o), 0);
    o = options();
    o.steps = 40;
    o.seed = 99; /* the checkpoint's holds */
    o.resume = o.save = "half";
    setenv("MOE_CHAOS", "3", 1);
    assert_int_equal(command(command_train, &o), 0);
    unsetenv("MOE_CHAOS");
    for (int i = 21; i <= 40; i++) {
        step_line(i, got);
        assert_string_equal(got, want[i]);
    }
    assert_null(strstr(output, "step 20 "));
    assert_int_equal(system("cmp whole/model.safetensors half/model.safetensors && cmp whole/states.safetensors "
                            "half/states.safetensors"),
                     0);
    o.resume = "half"; /* nothing left to do */
    assert_int_equal(command(command_train, &o), 0);
    assert_string_equal(output, "");
}

static void expect_error(int (*run)(const MoeProgram *, const Options *), const Options *o, const char *message) {
    char want[600];
    snprintf(want, sizeof want, "error: %s\n", message);
    assert_int_equal(command(run, o), EXIT_user);
    assert_string_equal(errors, want);
}

static void test_refuses(void **state) {
    Options o = options();
    o.data = NULL;
    expect_error(command_train, &o, "train needs --data FILE");
    o.data = "none";
    expect_error(command_train, &o, "none: No such file or directory");
    o.data = ".";
    expect_error(command_train, &o, ".: not a regular file");
    spit("tiny", "too short", 9);
    o.data = "tiny";
    expect_error(command_train, &o, "the text is shorter than one row of 33 tokens");
    o = options();
    mkdir("mine", 0777);
    spit("mine/precious", "x", 1);
    o.save = "mine";
    expect_error(command_train, &o, "mine: exists and is not a checkpoint; give --save another place");
    o.save = "no/where";
    expect_error(command_train, &o, "no/where: cannot be written here: No such file or directory");
    o = options();
    o.entry = "lossy";
    expect_error(command_train, &o, "no training function is called 'lossy'");
    o = options();
    expect_error(command_eval, &o, "eval needs --weights PATH");
}

/* ---- damaged checkpoints ------------------------------------------------------------------------------------ */

static void copy_checkpoint(void) {
    assert_int_equal(system("rm -rf bad && cp -r ck bad"), 0);
}

static void expect_resume(const char *message) {
    Options o = options();
    o.steps = 50;
    o.resume = "bad";
    expect_error(command_train, &o, message);
    copy_checkpoint();
}

/* meta.json with one text replaced by another of the same place. */
static void meta_edit(const char *from, const char *to) {
    char text[600], edited[700];
    slurp("ck/meta.json", text, sizeof text);
    char *at = strstr(text, from);
    if (!at) fail_msg("no %s in %s", from, text);
    snprintf(edited, sizeof edited, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    spit("bad/meta.json", edited, strlen(edited));
}

static void flip(const char *path, long at) {
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, at, SEEK_SET);
    int c = fgetc(f);
    fseek(f, at, SEEK_SET);
    fputc(c ^ 1, f);
    fclose(f);
}

static void test_damage(void **state) {
    Options o = options();
    o.steps = 2;
    o.save = "ck";
    assert_int_equal(command(command_train, &o), 0);
    copy_checkpoint();
    struct stat a;
    assert_int_equal(stat("ck/model.safetensors", &a), 0);

    unlink("bad/meta.json");
    expect_resume("bad/meta.json: No such file or directory");
    spit("bad/meta.json", "", 0);
    expect_resume("bad/meta.json: not a checkpoint's meta.json");
    spit("bad/meta.json", "{\"format\": \"x\"}", 15);
    expect_resume("bad/meta.json: not a checkpoint's meta.json");
    meta_edit("\"version\": 1", "\"version\": 2");
    expect_resume("bad/meta.json: 'version' is missing or out of range");
    meta_edit("\"step\": 2", "\"step\": -2");
    expect_resume("bad/meta.json: 'step' is missing or out of range");
    meta_edit("\"step\": 2", "\"step\": \"2\"");
    expect_resume("bad/meta.json: 'step' is missing or out of range");
    meta_edit("\"seed\": 3", "\"seed\": 4294967296");
    expect_resume("bad/meta.json: 'seed' is missing or out of range");
    meta_edit("\"states.safetensors\"", "\"states\"");
    expect_resume("bad/states.safetensors: damaged: not the file that meta.json was written with");
    flip("bad/model.safetensors", (long)a.st_size / 2);
    expect_resume("bad/model.safetensors: damaged: not the file that meta.json was written with");
    assert_int_equal(truncate("bad/model.safetensors", a.st_size - 1), 0);
    expect_resume("bad/model.safetensors: damaged: not the file that meta.json was written with");
    unlink("bad/states.safetensors");
    expect_resume("bad/states.safetensors: No such file or directory");
    o = options();
    o.weights = "bad/model.safetensors";
    assert_int_equal(truncate("bad/model.safetensors", a.st_size - 1), 0);
    expect_error(command_eval, &o, "bad/model.safetensors: truncated: 1 bytes of data are missing");
}

/* ---- weights that do not fit -------------------------------------------------------------------------------- */

static void fill_tag(void *ctx, const StOut *t, void *buffer) {
    float x = t->index ? NAN : 0.5f;
    for (int64_t i = 0; i < t->bytes / 4; i++) memcpy((char *)buffer + 4 * i, &x, 4);
}

static void expect_weights(int n, const StOut *t, const char *message) {
    StOut copy[4];
    Error e = {0};
    memcpy(copy, t, (size_t)n * sizeof *t);
    assert_true(st_write("w", n, copy, fill_tag, NULL, &e));
    Options o = options();
    o.weights = "w";
    if (message)
        expect_error(command_eval, &o, message);
    else
        assert_int_equal(command(command_eval, &o), 0);
}

static void test_weights(void **state) {
    StOut w[3] = {{.name = "block.0.w", .dtype = MOE_f32, .rank = 2, .shape = {256, 256}},
                  {.name = "block.1.w", .dtype = MOE_f32, .rank = 2, .shape = {256, 256}},
                  {.name = "other", .dtype = MOE_f32, .rank = 1, .shape = {4}}};
    expect_weights(2, w, NULL);
    expect_weights(3, w, "w: tensor 'other' is not of this program");
    expect_weights(1, w, "w: tensor 'block.1.w' is missing");
    w[1].shape[1] = 128;
    expect_weights(2, w, "w: tensor 'block.1.w' has shape [256, 128]; the program needs [256, 256]");
    w[1].shape[1] = 256;
    w[1].dtype = MOE_i32;
    expect_weights(2, w, "w: tensor 'block.1.w' is I32; the program needs f32");
    w[1].dtype = MOE_f32;
    w[1].index = 1;
    expect_weights(2, w, "w: tensor 'block.1.w' contains NaN");
    w[1] = (StOut){.name = "block.1.w", .dtype = MOE_bf16, .rank = 2, .shape = {256, 256}};
    expect_weights(2, w, NULL);
}

/* A loss that is not finite ends the run, and the old checkpoint stays. */
static void test_not_finite(void **state) {
    StOut w[2] = {{.name = "block.0.w", .dtype = MOE_bf16, .rank = 2, .shape = {256, 256}, .index = 0},
                  {.name = "block.1.w", .dtype = MOE_bf16, .rank = 2, .shape = {256, 256}, .index = 0}};
    Error e = {0};
    StFile f;
    assert_true(st_write("w", 2, w, fill_tag, NULL, &e) && st_open("w", &f, &e));
    int64_t at = st_find(&f, "block.1.w")->at - f.map.at;
    int64_t bytes = (int64_t)f.map.bytes;
    st_close(&f);
    char *copy = xmalloc((size_t)bytes);
    FILE *in = fopen("w", "rb");
    assert_int_equal(fread(copy, 1, (size_t)bytes, in), bytes);
    fclose(in);
    for (int64_t i = at; i < bytes; i += 2) memcpy(copy + i, "\x80\x7f", 2); /* infinity */
    spit("w", copy, (size_t)bytes);
    free(copy);
    Options o = options();
    o.weights = "w";
    o.save = "never";
    assert_int_equal(command(command_train, &o), EXIT_user);
    assert_string_equal(errors, "error: step 1: the loss is nan; stopped, nothing was saved after it\n");
    assert_int_equal(access("never", F_OK), -1);
}

/* ---- eval, generate, run ------------------------------------------------------------------------------------ */

static void test_eval(void **state) {
    Options o = options();
    o.weights = "ck";
    char first[sizeof output];
    assert_int_equal(command(command_eval, &o), 0);
    strcpy(first, output);
    assert_int_equal(strncmp(first, "eval windows 24 loss ", 21), 0);
    assert_int_equal(command(command_eval, &o), 0);
    assert_string_equal(output, first);
}

static void test_generate(void **state) {
    Options o = options();
    o.weights = "whole";
    o.prompt = "a prompt that is longer than one chunk of prefill: exp";
    o.temperature = 0;
    o.max_tokens = 8;
    assert_int_equal(command(command_generate, &o), 0);
    assert_int_equal(strlen(output), strlen(o.prompt) + 8 + 1);
    assert_memory_equal(output, o.prompt, strlen(o.prompt));
    char first[sizeof output];
    strcpy(first, output);
    o.temperature = 3;
    assert_int_equal(command(command_generate, &o), 0);
    assert_string_not_equal(output, first);
    strcpy(first, output);
    assert_int_equal(command(command_generate, &o), 0);
    assert_string_equal(output, first);
    o.max_tokens = 11; /* the caches hold 64 */
    assert_int_equal(command(command_generate, &o), 0);
    assert_int_equal(strlen(output), 64 + 1);
    assert_string_equal(errors, "stopped at 64 positions, which is what the program keeps\n");
    o.prompt = "a prompt that is longer than what the program keeps: it has 65 to";
    expect_error(command_generate, &o, "the prompt has 65 tokens, and the program keeps 64 positions");
    o.prompt = NULL;
    o.max_tokens = 1;
    assert_int_equal(command(command_generate, &o), 0);
    assert_int_equal(strlen(output), 3);
}

static void test_run(void **state) {
    int32_t text[B * (S + 1)];
    int64_t shape[2] = {B, S + 1}, wrong[2] = {S + 1, B};
    for (int i = 0; i < B * (S + 1); i++) text[i] = i % 256;
    Error e = {0};
    assert_true(npy_write("text.npy", MOE_i32, 2, shape, text, &e) &&
                npy_write("wrong.npy", MOE_i32, 2, wrong, text, &e));
    Options o = {.entry = "loss", .nin = 1, .in = {"text=text.npy"}, .out = "results", .seed = 3};
    assert_int_equal(command(command_run, &o), 0);
    Npy a;
    assert_true(npy_read("results/loss.npy", &a, &e));
    assert_int_equal(a.rank, 0);
    assert_true(fabsf(*(float *)a.at - logf(256)) < 0.1f);
    free(a.at);
    assert_true(npy_read("results/accuracy.npy", &a, &e));
    free(a.at);
    o.in[0] = "text=wrong.npy";
    expect_error(command_run, &o, "wrong.npy: argument 'text' is i32[B:8, S+1:33]; the file has i32 of another shape");
    o.in[0] = "test=text.npy";
    expect_error(command_run, &o, "'loss' has no argument 'test'");
    o.in[0] = "text";
    expect_error(command_run, &o, "--in text: expected NAME=FILE.npy");
    o.in[0] = "text=text.npy";
    o.in[1] = "text=wrong.npy";
    o.nin = 2;
    expect_error(command_run, &o, "--in text is given twice");
    o.nin = 0;
    expect_error(command_run, &o, "'loss' needs --in text=FILE.npy, i32[B:8, S+1:33]");
    o.entry = "lose";
    expect_error(command_run, &o, "no function is called 'lose'; there are: loss, decode, prefill");
}

/* Training steps on given arrays: what `train` does when it draws the same rows every time. */
static void test_run_train(void **state) {
    Options o = {.entry = "loss",
                 .nin = 1,
                 .in = {"text=text.npy"},
                 .out = "results",
                 .seed = 3,
                 .train = true,
                 .steps = 3,
                 .save = "three"};
    assert_int_equal(command(command_run, &o), 0);
    double loss[3];
    assert_int_equal(sscanf(output, "step 1 loss %lf accuracy %*f\nstep 2 loss %lf accuracy %*f\nstep 3 loss %lf",
                            &loss[0], &loss[1], &loss[2]),
                     3);
    assert_true(loss[1] < loss[0] && loss[2] < loss[1]);
    Error e = {0};
    Npy a;
    assert_true(npy_read("results/loss.npy", &a, &e));
    assert_true(fabs(*(float *)a.at - loss[2]) < 1e-6);
    free(a.at);
    o = (Options){.entry = "loss", .nin = 1, .in = {"text=text.npy"}, .out = "results", .weights = "three"};
    assert_int_equal(command(command_run, &o), 0);
    assert_true(npy_read("results/loss.npy", &a, &e));
    assert_true(*(float *)a.at < loss[2]);
    free(a.at);
    o.train = true;
    o.entry = "decode";
    expect_error(command_run, &o, "no training function is called 'decode'; there are: loss");
}

/* ---- the command line --------------------------------------------------------------------------------------- */

static char typed[300];

static int cli(const MoeProgram *p, const Options *o) {
    (void)o;
    int argc = 0;
    char *argv[16];
    for (char *word = strtok(typed, " "); word && argc < 16; word = strtok(NULL, " ")) argv[argc++] = word;
    return cli_main(p, argc, argv);
}

static void expect_cli(const char *line, int code, const char *message) {
    snprintf(typed, sizeof typed, "%s", line);
    int rc = command(cli, NULL);
    const char *said = code ? errors : output;
    if (rc != code || strncmp(said, message, strlen(message)) != 0)
        fail_msg("%s: exit %d: %s%s", line, rc, output, errors);
}

static void test_command_line(void **state) {
    expect_cli("./m --help", 0, "usage: ./m COMMAND [options]\n");
    expect_cli("./m train --help", 0, "usage: ./m train [options]\n");
    expect_cli("./m run --help", 0, "usage: ./m run ENTRY [options]\n");
    expect_cli("./m info", 0, "bigram.moe\nmesh [data: 2], 2 devices\n131072 parameters");
    expect_cli("./m trian", 2, "error: unknown command 'trian'; did you mean 'train'?\n");
    expect_cli("./m zzzzzzzz", 2, "error: unknown command 'zzzzzzzz'\n");
    expect_cli("./m train --dta x", 2, "error: unknown option '--dta'; did you mean '--data'?\n");
    expect_cli("./m train --prompt x", 2, "error: unknown option '--prompt'");
    expect_cli("./m train --steps", 2, "error: a value must follow '--steps'\n");
    expect_cli("./m train --steps 1.5", 2, "error: --steps: '1.5' is not an integer in range\n");
    expect_cli("./m train --steps 0", 2, "error: --steps: '0' is not an integer in range\n");
    expect_cli("./m train --steps 0x10", 2, "error: --steps: '0x10' is not an integer in range\n");
    expect_cli("./m train --steps 99999999999", 2, "error: --steps: '99999999999' is not an integer in range\n");
    expect_cli("./m train --time 5d", 2, "error: --time: '5d' is not a time like 60s, 5m, 2h\n");
    expect_cli("./m train --time=-1s", 2, "error: --time: '-1s' is not a time like 60s, 5m, 2h\n");
    expect_cli("./m generate --temperature nan", 2, "error: --temperature: 'nan' is not a number in range\n");
    expect_cli("./m generate word", 2, "error: unexpected argument 'word'\n");
    expect_cli("./m run loss again", 2, "error: unexpected argument 'again'\n");
    expect_cli("./m run loss --train=yes", 2, "error: no value may follow '--train'\n");
    expect_cli("./m train --devices 3", 1, "error: compiled for 2 devices; for 3, compile with --mesh data=3\n");
    expect_cli("./m train --devices=2 --data none", 1, "error: none: No such file or directory\n");
    expect_cli("./m run loss --in text=text.npy --out results --seed 3 --devices 2", 0, "");
}

/* SIGTERM: the step under way is finished, the checkpoint written, exit code 75; the run resumes from there. */
static void test_signal(void **state) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, 1);
        Options o = options();
        o.steps = 1000000;
        o.save = "stopped";
        _exit(command_train(&moe_program, &o));
    }
    usleep(300000);
    kill(child, SIGTERM);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), EXIT_stopped);
    char meta[400];
    int step = 0;
    slurp("stopped/meta.json", meta, sizeof meta);
    assert_int_equal(sscanf(strstr(meta, "\"step\""), "\"step\": %d", &step), 1);
    assert_true(step > 0);
    Options o = options();
    o.steps = step + 1;
    o.resume = "stopped";
    assert_int_equal(command(command_train, &o), 0);
    char line[200];
    step_line(step + 1, line);
}

int main(void) {
    char clean[64];
    const char *dir = test_dir();
    make_text();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_signal),  cmocka_unit_test(test_learns),     cmocka_unit_test(test_resumes),
        cmocka_unit_test(test_refuses), cmocka_unit_test(test_damage),     cmocka_unit_test(test_eval),
        cmocka_unit_test(test_weights), cmocka_unit_test(test_not_finite), cmocka_unit_test(test_generate),
        cmocka_unit_test(test_run),     cmocka_unit_test(test_run_train),  cmocka_unit_test(test_command_line),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    snprintf(clean, sizeof clean, "rm -rf %s", dir);
    return system(clean) ? 1 : failed;
}
