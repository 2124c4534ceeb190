/* ranks.c: several processes, one job: how they find each other, agree, fail together, and notice a death.
 *
 * A launcher's variables say how many were started. More than one need the plugin libmoert_mpi.so, and a world of that
 * size in it; otherwise this is an error, since N copies that know nothing of each other would each train a model of
 * its own and overwrite its files.
 *
 * Failure. A rank whose command fails tells all others (a notice); they see it in their next wait and leave their
 * commands too. Everybody comes to ranks_end, where rank 0 prints the first error. A death tells nobody. A process on
 * the same machine is watched by a pidfd, which becomes readable when it ends: at the next look (20 a second) the
 * lowest rank left there says who died and in which operation it is missed, and aborts the job. On other machines the
 * launcher sees the death and sends SIGTERM; a rank that is told to end while it waits says whom it waits for.
 *
 * Complexity: a wait polls; after a millisecond it sleeps 50 us between looks, for the sake of workers on the same
 * cores. */
#include "ranks.h"

#include <dlfcn.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "host.h"

enum { EXIT_peer = 5, TEXT = 512 };
static const double LOOK = 0.05, PATIENCE = 3, QUIET = 0.001;

/* What a rank says of itself at the start. */
typedef struct Card {
    char host[64];
    int64_t pid;
    uint64_t machine;            /* host and process namespace: where pid means something */
    uint64_t program, arguments; /* hashes: must be everybody's */
    uint64_t cores;              /* hash of the cores it may use */
} Card;

typedef struct Notice {
    int code;
    char text[TEXT]; /* "": fails because another does */
} Notice;

static struct Ranks {
    const Transport *by;
    int self, count;
    Card *card;       /* [count] */
    int *watch;       /* [count]: pidfd, -1: none */
    Notice *notice;   /* [count], where `ended` */
    bool *ended;      /* [count] */
    bool failed;      /* nothing is exchanged any more */
    Notice mine;      /* what this rank has to say at its end */
    double looked;    /* when the others were last looked at */
    double ended_at;  /* when the first one had ended well */
    double signal_at; /* when a signal was first seen in a wait */
    bool said;
    const char *function, *what, *where;
    int64_t step;
} self = {.count = 1};

int ranks_self(void) {
    return self.self;
}
int ranks_count(void) {
    return self.count;
}
const Transport *ranks_transport(void) {
    return self.by;
}

void ranks_call(const char *function, int64_t step) {
    self.function = function;
    self.step = step;
}
void ranks_doing(const char *what, const char *where) {
    self.what = what;
    self.where = where;
}

void note(const char *fmt, ...) {
    if (self.self) return;
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
}

bool ranks_report(const char *text) {
    if (self.count == 1) return false;
    if (!self.failed || self.mine.text[0]) snprintf(self.mine.text, TEXT, "%s", text);
    return true;
}

/* ---- watching ----------------------------------------------------------------------------------------------- */

static bool is_failure(int code) {
    return code && code != EXIT_stopped;
}

static void notices_read(void) {
    Notice n;
    for (int from; (from = self.by->heard(&n, sizeof n)) >= 0;) {
        self.notice[from] = n;
        self.ended[from] = true;
        if (self.ended_at == 0) self.ended_at = clock_seconds();
        self.failed |= is_failure(n.code);
    }
}

static bool is_dead(int rank) {
    struct pollfd p = {.fd = self.watch[rank], .events = POLLIN};
    return p.fd >= 0 && poll(&p, 1, 0) == 1;
}

static void operation_text(char *out, size_t room) {
    char call[200] = "";
    if (self.function) snprintf(call, sizeof call, " of '%.100s', step %lld", self.function, (long long)self.step + 1);
    if (self.what)
        snprintf(out, room, "in %s (%.200s)%s", self.what, self.where ? self.where : "", call);
    else
        snprintf(out, room, "%s%s", self.function ? "in its own part" : "between calls", call);
}

/* Said once, by the lowest rank that is left on the machine. */
static _Noreturn void peer_died(int rank) {
    bool speaks = true;
    for (int r = 0; r < self.self; r++)
        if (r != rank && self.watch[r] >= 0 && !is_dead(r)) speaks = false;
    char operation[512];
    operation_text(operation, sizeof operation);
    if (speaks)
        fprintf(stderr, "error: rank %d on %s (process %lld) died; rank %d was %s\n", rank, self.card[rank].host,
                (long long)self.card[rank].pid, self.self, operation);
    fflush(stderr);
    if (!speaks) nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
    self.by->abort(EXIT_peer);
    _exit(EXIT_peer);
}

static void look(void) {
    notices_read();
    for (int r = 0; r < self.count; r++) {
        if (r == self.self || self.ended[r] || !is_dead(r)) continue;
        notices_read(); /* its last words may have arrived after the first look */
        if (!self.ended[r]) peer_died(r);
    }
}

bool ranks_alive(void) {
    if (self.count == 1) return true;
    double now = clock_seconds();
    if (now - self.looked < LOOK) return !self.failed;
    self.looked = now;
    look();
    return !self.failed;
}

/* The launcher ends the job with SIGTERM when a rank dies on another machine; a user may, too. */
static void signal_tell(double now) {
    if (!signals_seen() || self.said) return;
    if (self.signal_at == 0) self.signal_at = now;
    if (now - self.signal_at < 0.5) return;
    self.said = true;
    char operation[512], whom[200] = "";
    operation_text(operation, sizeof operation);
    for (int r = 0, n = 0; r < self.count && n < 100; r++)
        if (self.by->waits_for(r))
            n += snprintf(whom + n, sizeof whom - (size_t)n, "%srank %d on %.60s", n ? ", " : "", r, self.card[r].host);
    fprintf(stderr, "rank %d on %s: told to end, and still waits for %s %s\n", self.self, self.card[self.self].host,
            *whom ? whom : "other ranks", operation);
    fflush(stderr);
}

static bool fail_here(const char *text) {
    self.failed = true;
    snprintf(self.mine.text, TEXT, "%s", text);
    return false;
}

bool ranks_wait(void) {
    if (self.count == 1) return true;
    double began = clock_seconds();
    self.signal_at = 0;
    while (!self.failed) {
        int done = self.by->settled();
        if (done > 0) return true;
        double now = clock_seconds();
        if (done < 0) {
            char text[TEXT], operation[300];
            look();
            operation_text(operation, sizeof operation);
            snprintf(text, sizeof text, "%s: %.150s, %s", self.by->name, self.by->why(), operation);
            return self.failed ? false : fail_here(text);
        }
        ranks_alive();
        signal_tell(now);
        if (self.ended_at > 0 && now - self.ended_at > PATIENCE) return fail_here("a rank has ended before the others");
        if (now - began < QUIET)
            sched_yield();
        else
            nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
    }
    return false;
}

bool ranks_ok(Error *e) {
    return !self.failed || error_set(e, "%s", self.mine.text[0] ? self.mine.text : "another rank failed");
}

bool ranks_any(bool mine) {
    if (self.count == 1) return mine;
    unsigned char *all = xcalloc((size_t)self.count + 1, 1); /* and this rank's word behind them */
    all[self.count] = mine;
    ranks_doing("an agreement", "whether to go on");
    self.by->share(all + self.count, all, 1);
    bool any = false, ok = ranks_wait();
    ranks_doing(NULL, NULL);
    for (int r = 0; ok && r < self.count; r++) any |= all[r];
    if (ok) free(all);
    return any || !ok;
}

/* ---- the beginning ------------------------------------------------------------------------------------------ */

static const struct {
    const char *count, *rank, *name;
} launchers[] = {
    {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "mpirun"},
    {"PMI_SIZE", "PMI_RANK", "mpiexec"},
    {"SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "srun"},
};

static int number_of(const char *variable) {
    const char *text = getenv(variable);
    return text ? (int)strtol(text, NULL, 10) : 0;
}

static const Transport *plugin_load(const char **why) {
    void *lib = dlopen("libmoert_mpi.so", RTLD_NOW | RTLD_GLOBAL);
    const Transport *(*get)(void) = NULL;
    if (lib) *(void **)(void *)&get = dlsym(lib, "moe_transport");
    const Transport *t = get ? get() : NULL;
    *why = t ? "it is of another version; compile the program again" : dlerror();
    return t && t->abi == TRANSPORT_ABI ? t : NULL;
}

static uint64_t file_number(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 ? (uint64_t)st.st_ino : 0;
}

static void card_fill(Card *c, int argc, char **argv) {
    memset(c, 0, sizeof *c);
    gethostname(c->host, sizeof c->host - 1);
    c->pid = getpid();
    c->machine = bytes_hash(c->host, sizeof c->host) ^ file_number("/proc/self/ns/pid");
    for (int i = 1; i < argc; i++) c->arguments = c->arguments * 31 + bytes_hash(argv[i], strlen(argv[i]));
    cpu_set_t cores;
    CPU_ZERO(&cores);
    sched_getaffinity(0, sizeof cores, &cores);
    c->cores = bytes_hash((const char *)&cores, sizeof cores);
    Mapped m;
    Error ignored = {0};
    if (file_map("/proc/self/exe", &m, &ignored)) c->program = bytes_hash(m.at, m.bytes);
    file_unmap(&m);
}

static bool cards_exchange(int argc, char **argv, Error *e) {
    size_t n = (size_t)self.count;
    self.card = xcalloc(n, sizeof *self.card);
    self.watch = xcalloc(n, sizeof *self.watch);
    self.notice = xcalloc(n, sizeof *self.notice);
    self.ended = xcalloc(n, sizeof *self.ended);
    for (size_t r = 0; r < n; r++) self.watch[r] = -1;
    static Card mine;
    card_fill(&mine, argc, argv);
    self.by->share(&mine, self.card, (int)sizeof mine);
    if (!ranks_wait()) return ranks_ok(e);
    bool same = true;
    for (int r = 0; r < self.count; r++) {
        const Card *c = &self.card[r];
        if (c->machine == mine.machine && r != self.self)
            self.watch[r] = (int)syscall(SYS_pidfd_open, (pid_t)c->pid, 0);
        same &= c->program == self.card[0].program && c->arguments == self.card[0].arguments;
    }
    return same || error_set(e, "the ranks are not all the same program with the same arguments");
}

bool ranks_begin(int argc, char **argv, Error *e) {
    int n = 0, rank = 0, i = 0;
    for (; i < (int)(sizeof launchers / sizeof *launchers); i++)
        if ((n = number_of(launchers[i].count)) > 0) break;
    if (n <= 1) return true;
    rank = number_of(launchers[i].rank);
    const char *name = launchers[i].name, *why = "";
    char reason[200] = "";
    int found = 1;
    const Transport *by = plugin_load(&why);
    if (!by)
        error_set(e, "started by %s as %d processes, which need libmoert_mpi.so to work together: %s", name, n, why);
    else if (!by->begin(&self.self, &found, reason, sizeof reason))
        error_set(e, "started by %s as %d processes, but %s: %s", name, n, by->name, reason);
    else if (found != n)
        error_set(e, "started by %s as %d processes, but %s sees %d; was the program built for another MPI?", name, n,
                  by->name, found);
    if (e->text[0]) {
        if (rank) e->text[0] = '\0';
        return false;
    }
    self.by = by;
    self.count = n;
    if (self.self && !freopen("/dev/null", "w", stdout)) return error_set(e, "/dev/null cannot be opened");
    return cards_exchange(argc, argv, e);
}

Neighbours ranks_neighbours(void) {
    Neighbours n = {1, 0, 1};
    for (int r = 0; self.count > 1 && r < self.count; r++) {
        const Card *c = &self.card[r], *mine = &self.card[self.self];
        if (r == self.self || c->machine != mine->machine) continue;
        n.here++;
        if (c->cores != mine->cores) continue;
        n.sharing++;
        n.place += r < self.self;
    }
    return n;
}

/* ---- the end ------------------------------------------------------------------------------------------------ */

static bool all_ended(void) {
    for (int r = 0; r < self.count; r++)
        if (!self.ended[r]) return false;
    return true;
}

/* One message, by the lowest rank that has come: the error as it is when all ranks have it, else the first one's with
 * its name. */
static void report(void) {
    int first = -1, alike = 0;
    for (int r = 0; r < self.self; r++)
        if (self.ended[r]) return;
    for (int r = self.count - 1; r >= 0; r--)
        if (self.ended[r] && self.notice[r].text[0]) first = r;
    if (first < 0) return;
    for (int r = 0; r < self.count; r++) alike += !strcmp(self.notice[r].text, self.notice[first].text);
    if (alike == self.count)
        fprintf(stderr, "error: %s\n", self.notice[first].text);
    else
        fprintf(stderr, "error: rank %d on %s: %s\n", first, self.card[first].host, self.notice[first].text);
    fflush(stderr);
}

int ranks_end(int code) {
    if (self.count == 1) return code;
    fflush(stdout);
    self.mine.code = code;
    if (!is_failure(code)) self.mine.text[0] = '\0';
    self.notice[self.self] = self.mine;
    self.ended[self.self] = true;
    for (int r = 0; r < self.count; r++)
        if (r != self.self) self.by->tell(r, &self.mine, sizeof self.mine);
    double failed_at = 0, now = 0;
    ranks_call(NULL, 0);
    ranks_doing("the end of the job", "waiting for all");
    for (;;) {
        look();
        now = clock_seconds();
        if ((self.failed || is_failure(code)) && failed_at == 0) failed_at = now;
        if (all_ended() || (failed_at > 0 && now - failed_at > PATIENCE)) break;
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    }
    for (int r = 0; r < self.count; r++)
        if (self.notice[r].code > code) code = self.notice[r].code;
    report();
    if (!all_ended()) self.by->abort(code ? code : EXIT_user);
    self.by->end();
    return code;
}
