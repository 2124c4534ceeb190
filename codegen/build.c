/* build.c: C text becomes a binary.
 *
 * The compiler is run through posix_spawn with an argument vector, never through a shell. It works in a folder of its
 * own (mkdtemp, mode 0700), which is removed on success, on failure and on a signal; the binary is renamed into place,
 * so a half-written one is never seen. The runtime (moe_rt.h, libmoert.a) is found from the place of the moecc binary:
 * ../runtime beside build/ in a source tree, ../lib/moecc when installed.
 *
 * Generated code may assume wrapping integers, and neither errno nor trapping floats; products and sums are not
 * contracted, so a result does not depend on which loop an operation landed in. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "codegen.h"

extern char **environ;

enum { MAX_ARGS = 64 };

/* A moecc built with a sanitizer builds programs with it: the runtime beside it needs that. */
#if defined(__SANITIZE_ADDRESS__)
#define SANITIZE "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined",
#elif defined(__SANITIZE_THREAD__)
#define SANITIZE "-O1", "-g", "-fsanitize=thread",
#else
#define SANITIZE
#endif

/* The files of the build that runs now, for the signal handler. */
static char work_dir[PATH_MAX], c_file[PATH_MAX], log_file[PATH_MAX], temp_out[PATH_MAX];

static void remove_work(void) {
    if (temp_out[0] != '\0') unlink(temp_out);
    if (c_file[0] != '\0') unlink(c_file);
    if (log_file[0] != '\0') unlink(log_file);
    if (work_dir[0] != '\0') rmdir(work_dir);
    temp_out[0] = c_file[0] = log_file[0] = work_dir[0] = '\0';
}

static void on_signal(int sig) {
    remove_work();
    signal(sig, SIG_DFL);
    raise(sig);
}

static const int caught[] = {SIGINT, SIGTERM, SIGHUP};
enum { CAUGHT = sizeof caught / sizeof *caught };

static void catch_signals(struct sigaction *old) {
    struct sigaction act = {.sa_handler = on_signal};
    for (int i = 0; i < CAUGHT; i++) sigaction(caught[i], &act, &old[i]);
}

static void restore_signals(const struct sigaction *old) {
    for (int i = 0; i < CAUGHT; i++) sigaction(caught[i], &old[i], NULL);
}

/* ---- files --------------------------------------------------------------------------------------------------- */

static bool failed(const char *what, const char *path) {
    diag_error((Loc){0}, "cannot %s %s: %s", what, path, strerror(errno));
    return false;
}

static bool write_all(int fd, const char *text) {
    size_t n = strlen(text);
    while (n > 0) {
        ssize_t k = write(fd, text, n);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return false;
        text += k;
        n -= (size_t)k;
    }
    return true;
}

/* A file that is being written. `to` is the path once links are followed, so that a link stays one; `temp` lies in the
 * same folder, so that the rename stays within one file system. A device or a pipe (`special`) cannot be replaced. */
typedef struct Output {
    char to[PATH_MAX], temp[PATH_MAX];
    bool special;
} Output;

static bool output_find(Output *o, const char *path) {
    struct stat st;
    bool exists = stat(path, &st) == 0;
    *o = (Output){.special = exists && !S_ISREG(st.st_mode)};
    if (exists && S_ISDIR(st.st_mode)) return errno = EISDIR, failed("write", path);
    if (exists && realpath(path, o->to) == NULL) return failed("write", path);
    if (!exists) snprintf(o->to, PATH_MAX, "%s", path);
    if (snprintf(o->temp, PATH_MAX, "%s.tmp%ld", o->to, (long)getpid()) < PATH_MAX) return true;
    return errno = ENAMETOOLONG, failed("write", path);
}

/* Never through a link that someone else put there. */
static int temp_open(const char *temp) {
    unlink(temp);
    return open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
}

bool codegen_write_file(const char *path, const char *text) {
    if (strcmp(path, "-") == 0) return write_all(STDOUT_FILENO, text) || failed("write", "standard output");
    Output o;
    if (!output_find(&o, path)) return false;
    int fd = o.special ? open(path, O_WRONLY | O_NOCTTY | O_CLOEXEC) : temp_open(o.temp);
    if (fd < 0) return failed("write", path);
    bool ok = write_all(fd, text);
    ok &= close(fd) == 0;
    if (ok && (o.special || rename(o.temp, o.to) == 0)) return true;
    failed("write", path);
    if (!o.special) unlink(o.temp);
    return false;
}

/* ---- the runtime --------------------------------------------------------------------------------------------- */

typedef struct Runtime {
    char include[PATH_MAX + 16], lib[PATH_MAX + 32];
} Runtime;

static bool runtime_at(Runtime *r, const char *dir, const char *include, const char *lib) {
    char header[PATH_MAX + 32];
    snprintf(r->include, sizeof r->include, "%s/%s", dir, include);
    snprintf(r->lib, sizeof r->lib, "%s/%s", dir, lib);
    snprintf(header, sizeof header, "%s/moe_rt.h", r->include);
    return access(header, R_OK) == 0 && access(r->lib, R_OK) == 0;
}

static bool runtime_find(Runtime *r) {
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0) return failed("find", "the moecc binary");
    self[n] = '\0';
    char *slash = strrchr(self, '/');
    if (slash != NULL) *slash = '\0';
    if (runtime_at(r, self, "../runtime", "libmoert.a")) return true;
    if (runtime_at(r, self, "../lib/moecc", "libmoert.a")) return true;
#ifdef MOECC_RUNTIME /* a build folder outside of the source tree */
    snprintf(r->include, sizeof r->include, "%s", MOECC_RUNTIME);
    snprintf(r->lib, sizeof r->lib, "%.*s/libmoert.a", PATH_MAX, self);
    if (access(r->lib, R_OK) == 0) return true;
#endif
    diag_error((Loc){0}, "the runtime is not beside moecc: neither %s/../runtime and %s/libmoert.a nor %s/../lib/moecc",
               self, self, self);
    return false;
}

/* ---- the command --------------------------------------------------------------------------------------------- */

typedef struct Command {
    const char *at[MAX_ARGS];
    int n;
} Command;

static void add(Command *c, const char *arg) {
    if (c->n + 1 < MAX_ARGS) c->at[c->n++] = arg;
}

static void command_show(const Command *c) {
    for (int i = 0; i < c->n; i++) fprintf(stderr, "%s%s", i > 0 ? " " : "", c->at[i]);
    fputc('\n', stderr);
}

/* Output of the compiler goes to log_file. Returns its exit status, 127 when it could not be started. */
static int command_run(const Command *c) {
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, log_file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_adddup2(&files, STDOUT_FILENO, STDERR_FILENO);
    pid_t pid;
    int error = posix_spawnp(&pid, c->at[0], &files, NULL, (char **)(uintptr_t)c->at, environ);
    posix_spawn_file_actions_destroy(&files);
    if (error != 0) {
        errno = error;
        return 127;
    }
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) return 126;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void show_log(void) {
    FILE *f = fopen(log_file, "r");
    if (f == NULL) return;
    char line[1024];
    for (int i = 0; i < 40 && fgets(line, sizeof line, f) != NULL; i++) fputs(line, stderr);
    fclose(f);
}

static bool copy_text(const char *out, const char *text, char *kept) {
    return snprintf(kept, PATH_MAX, "%s.c", out) < PATH_MAX && codegen_write_file(kept, text);
}

/* Whether the same command makes a program that does nothing: if not, compiler or libraries are at fault. */
static bool compiler_works(const Command *c) {
    return codegen_write_file(c_file, "#include \"moe_rt.h\"\nconst MoeProgram moe_program;\n") && command_run(c) == 0;
}

/* The C compiler is at fault, or the text is: then the text stays for inspection. */
static bool compile_failed(const Command *c, int status, const char *text, const char *out) {
    if (status == 127) {
        diag_error((Loc){0}, "cannot run the C compiler %s: %s (set CC to one)", c->at[0], strerror(errno));
        return false;
    }
    show_log();
    if (status > 128) {
        diag_error((Loc){0}, "the C compiler was ended by signal %d", status - 128);
        return false;
    }
    if (!compiler_works(c)) {
        diag_error((Loc){0}, "the C compiler (%s) cannot make a program that does nothing with moecc's runtime",
                   c->at[0]);
        return false;
    }
    char kept[PATH_MAX];
    bool saved = copy_text(out, text, kept);
    remove_work();
    diag_bug("the C compiler (%s) refused the generated code%s%s", c->at[0], saved ? ", kept in " : "",
             saved ? kept : "");
}

/* $CC may hold options, as make has it: "gcc -fsanitize=thread". */
static void add_words(Command *c, const char *words) {
    static char copy[1024];
    snprintf(copy, sizeof copy, "%s", words);
    char *rest = NULL;
    for (char *w = strtok_r(copy, " \t", &rest); w != NULL; w = strtok_r(NULL, " \t", &rest)) add(c, w);
}

static void command_fill(Command *c, const BuildOptions *opt, const Runtime *r) {
    static char march[64], rpath[PATH_MAX + 64];
    const char *cc = opt->cc != NULL ? opt->cc : getenv("CC");
    snprintf(march, sizeof march, "-march=%s", opt->march != NULL ? opt->march : "native");
    if (cc != NULL) add_words(c, cc);
    if (c->n == 0) add(c, "cc");
    const char *const flags[] = {
        "-std=c11",          "-O3",           march, "-fwrapv",  "-fno-math-errno", "-fno-trapping-math",
        "-ffp-contract=off", "-fopenmp-simd", "-w",  "-pthread", SANITIZE "-I"};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) add(c, flags[i]);
    add(c, r->include);
    if (opt->debug) add(c, "-g");
    /* Where a program started by mpirun finds libmoert_mpi.so: beside itself, or beside the runtime. */
    snprintf(rpath, sizeof rpath, "$ORIGIN:%.*s", (int)(strrchr(r->lib, '/') - r->lib), r->lib);
    const char *const tail[] = {"-o",  temp_out,          c_file,   r->lib,    "-Xlinker",  "-rpath", "-Xlinker",
                                rpath, "-Wl,--as-needed", "-ldnnl", "-lhwloc", "-ljansson", "-lm"};
    for (size_t i = 0; i < sizeof tail / sizeof *tail; i++) add(c, tail[i]);
    c->at[c->n] = NULL;
}

static bool make_work(void) {
    const char *tmp = getenv("TMPDIR");
    snprintf(work_dir, sizeof work_dir - 16, "%s/moecc-XXXXXX", tmp != NULL && *tmp != '\0' ? tmp : "/tmp");
    if (mkdtemp(work_dir) == NULL) {
        failed("make the folder", work_dir);
        work_dir[0] = '\0';
        return false;
    }
    snprintf(c_file, sizeof c_file, "%.*s/model.c", PATH_MAX - 16, work_dir);
    snprintf(log_file, sizeof log_file, "%.*s/log", PATH_MAX - 16, work_dir);
    return true;
}

static bool compile(const char *text, const char *out, const BuildOptions *opt, const Runtime *r) {
    Output o;
    if (!output_find(&o, out)) return false;
    if (o.special) return errno = EINVAL, failed("make a program of", out);
    if (!make_work() || !codegen_write_file(c_file, text)) return false;
    memcpy(temp_out, o.temp, sizeof temp_out);
    Command c = {.n = 0};
    command_fill(&c, opt, r);
    if (opt->verbose || opt->show_only) command_show(&c);
    if (opt->show_only) return true;
    /* An output that cannot be written is the user's to mend: find out before the compiler does. */
    int fd = temp_open(temp_out);
    if (fd < 0) return temp_out[0] = '\0', failed("write", out);
    close(fd);
    int status = command_run(&c);
    if (status != 0) return compile_failed(&c, status, text, out);
    if (rename(temp_out, o.to) != 0) return failed("write", out);
    temp_out[0] = '\0';
    char kept[PATH_MAX];
    return !opt->debug || copy_text(out, text, kept);
}

bool codegen_build(const char *c_text, const char *out_path, const BuildOptions *opt) {
    Runtime r;
    if (!runtime_find(&r)) return false;
    struct sigaction old[CAUGHT];
    catch_signals(old);
    bool ok = compile(c_text, out_path, opt, &r);
    remove_work();
    restore_signals(old);
    return ok;
}
