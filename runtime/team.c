/* team.c: devices as teams of threads.
 *
 * A device is a team of max(1, cores / devices) workers, so that one device uses the whole machine and eight on two
 * cores do not fight. Threads are bound to cores, neighbours in one device, only while they fit. Waiting is a short
 * spin, or some yields of the core where threads share it, then a futex. Measured for a small all_reduce: 0.8 us
 * between 2 devices on 2 cores; 9 us between 4, where a futex at once takes 45.
 *
 * A Gate is a counter with one writer at a time. The waiter announces itself before it looks at the value for the last
 * time, and the writer stores the value before it looks for waiters, both sequentially consistent: one of the two sees
 * the other (Dekker), so no wake-up is lost. Failure is polled every 100 ms besides, so no rank waits for a dead one.
 *
 * Before: moe_program's axis sizes multiply to its devices. After team_new: every arena is zero, every worker sleeps.
 */
#include "rt.h"

#include <errno.h>
#include <hwloc.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "comm.h"
#include "ranks.h"

enum { SPINS = 2000, YIELDS = 20, RECHECK_NS = 100 * 1000 * 1000 };

/* ---- gates -------------------------------------------------------------------------------------------------- */

static bool gate_reached(Gate *g, uint32_t target) {
    return (int32_t)(atomic_load_explicit(&g->value, memory_order_acquire) - target) >= 0;
}

/* With a core for each thread, the other side runs: look again soon. Else it may need this core: give it away. */
typedef enum Patience { PATIENCE_none, PATIENCE_spin, PATIENCE_yield } Patience;

static Patience patience_of(const Team *t) {
    return t->fits ? PATIENCE_spin : PATIENCE_yield;
}

static bool gate_spin(Gate *g, uint32_t target, Patience how) {
    int tries = how == PATIENCE_spin ? SPINS : how == PATIENCE_yield ? YIELDS : 0;
    for (int i = 0; i < tries; i++) {
        if (gate_reached(g, target)) return true;
        if (how == PATIENCE_yield) sched_yield();
#if defined(__x86_64__)
        else
            __builtin_ia32_pause();
#endif
    }
    return false;
}

static void futex_wait(_Atomic uint32_t *at, uint32_t seen) {
    struct timespec limit = {.tv_nsec = RECHECK_NS};
    syscall(SYS_futex, at, FUTEX_WAIT_PRIVATE, seen, &limit, NULL, 0);
}

/* Sleeps until the gate changes or it is time to look around; whether it was reached. */
static bool gate_nap(Gate *g, uint32_t target) {
    atomic_fetch_add(&g->waiters, 1);
    uint32_t seen = atomic_load(&g->value);
    if ((int32_t)(seen - target) < 0) futex_wait(&g->value, seen);
    atomic_fetch_sub(&g->waiters, 1);
    return gate_reached(g, target);
}

/* False: the team failed before the gate opened. */
static bool gate_sleep(Gate *g, uint32_t target, Patience how, _Atomic bool *failed) {
    if (gate_spin(g, target, how)) return true;
    while (!gate_nap(g, target))
        if (failed && atomic_load(failed)) return gate_reached(g, target);
    return true;
}

void gate_wait(Worker *w, Gate *g, uint32_t target) {
    if (gate_reached(g, target)) return;
    if (!gate_sleep(g, target, patience_of(w->team), &w->team->failed)) longjmp(w->on_fail, 1);
}

void gate_open(Gate *g, uint32_t value) {
    atomic_store(&g->value, value);
    if (atomic_load(&g->waiters)) syscall(SYS_futex, &g->value, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void gate_ring(Gate *g) {
    atomic_fetch_add(&g->value, 1);
    if (atomic_load(&g->waiters)) syscall(SYS_futex, &g->value, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

bool meeting_arrive(Worker *w, Meeting *m, uint32_t round) {
    uint32_t all = round * (uint32_t)w->pub.workers;
    if (atomic_fetch_add_explicit(&m->arrived, 1, memory_order_acq_rel) + 1 != all) return false;
    gate_open(&m->gate, round);
    return true;
}

void moe_barrier(MoeWorker *pub) {
    if (pub->workers == 1) return;
    Worker *w = (Worker *)pub;
    w->rounds++;
    meeting_arrive(w, &w->dev->barrier, w->rounds);
    gate_wait(w, &w->dev->barrier.gate, w->rounds);
}

/* ---- failure and chaos -------------------------------------------------------------------------------------- */

void worker_fail(Worker *w, const char *fmt, ...) {
    if (!atomic_exchange(&w->team->failed, true)) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(w->team->error.text, sizeof w->team->error.text, fmt, ap);
        va_end(ap);
    }
    longjmp(w->on_fail, 1);
}

/* A random pause of up to 200 us, half the time none: shakes out orders that a quiet machine never shows. */
void chaos_delay(Worker *w, unsigned place) {
    if (!w->team->chaos) return;
    MoePhilox r = moe_philox((uint32_t)w->team->chaos, place, (uint32_t)w->pub.top, (uint32_t)w->pub.device,
                             (uint32_t)w->pub.worker, 0);
    if (r.x0 & 1) return;
    struct timespec pause = {.tv_nsec = (long)(r.x1 % 200000)};
    nanosleep(&pause, NULL);
}

/* ---- threads ------------------------------------------------------------------------------------------------ */

/* The workers' loop: sleep at `start`, run the job, report at `finished`. */
static void *worker_main(void *arg) {
    Worker *w = arg;
    Team *t = w->team;
    if (t->fits) {
        hwloc_topology_t topo = t->topology;
        int all = hwloc_get_nbobjs_by_type(topo, HWLOC_OBJ_CORE), at = (int)(w - t->worker) + t->core;
        hwloc_obj_t core = all > at ? hwloc_get_obj_by_type(topo, HWLOC_OBJ_CORE, (unsigned)at) : NULL;
        if (core) hwloc_set_cpubind(topo, core->cpuset, HWLOC_CPUBIND_THREAD); /* a wish, not a need */
    }
    for (uint32_t round = 1;; round++) {
        gate_sleep(&t->start, round, patience_of(t), NULL);
        if (atomic_load(&t->stop)) return NULL;
        if (!setjmp(w->on_fail)) t->job(w, t->ctx);
        if (atomic_fetch_sub(&t->running, 1) > 1) continue;
        gate_open(&t->finished, round);
        if (t->local < t->devices) gate_ring(&t->bell);
    }
}

/* The main thread of one process of several, while the job runs: carries crossings, and looks after the others. */
static void team_serve(Team *t, uint32_t round) {
    for (;;) {
        uint32_t heard = atomic_load(&t->bell.value);
        if (gate_reached(&t->finished, round)) return;
        bool ok = cross_ready(t) ? cross_serve(t) : (gate_nap(&t->bell, heard + 1), ranks_alive());
        if (!ok && !atomic_exchange(&t->failed, true)) ranks_ok(&t->error);
    }
}

bool team_run(Team *t, Job job, void *ctx) {
    if (atomic_load(&t->failed)) return false;
    uint32_t round = atomic_load(&t->start.value) + 1;
    t->job = job;
    t->ctx = ctx;
    atomic_store(&t->running, (uint32_t)(t->local * t->workers));
    gate_open(&t->start, round);
    if (t->local < t->devices) team_serve(t, round);
    gate_sleep(&t->finished, round, PATIENCE_none, NULL);
    return !atomic_load(&t->failed);
}

static int cores_of(hwloc_topology_t topo) {
    int n = hwloc_get_nbobjs_by_type(topo, HWLOC_OBJ_CORE);
    if (n <= 0) n = hwloc_get_nbobjs_by_type(topo, HWLOC_OBJ_PU);
    return n > 0 ? n : 1;
}

static bool arenas_map(Team *t, Error *e) {
    size_t huge = 2u << 20, bytes = (t->arena_bytes + huge - 1) / huge * huge;
    t->arena_bytes = bytes ? bytes : huge;
    size_t have = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    int here = t->local * ranks_neighbours().here;
    if (t->arena_bytes > have / (size_t)here)
        return error_set(e, "%d devices need %zu MB each; this machine has %zu MB", here, t->arena_bytes >> 20,
                         have >> 20);
    for (int d = t->first; d < t->first + t->local; d++) {
        char *at =
            mmap(NULL, t->arena_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (at == MAP_FAILED)
            return error_set(e, "cannot map %zu MB for device %d: %s", t->arena_bytes >> 20, d, strerror(errno));
        madvise(at, t->arena_bytes, MADV_HUGEPAGE);
        t->device[d].arena = at;
    }
    return true;
}

/* Signals go to the main thread, which polls its flag between steps. */
static bool threads_start(Team *t, Error *e) {
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    bool ok = true;
    for (int i = 0; ok && i < t->local * t->workers; i++) {
        pthread_t thread;
        int rc = pthread_create(&thread, NULL, worker_main, &t->worker[i]);
        if (rc) ok = error_set(e, "cannot start thread %d of %d: %s", i + 1, t->local * t->workers, strerror(rc));
        t->worker[i].thread = ok ? thread : 0;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return ok;
}

/* Cores are divided among the devices of all ranks that may use the same ones. */
static void workers_deal(Team *t, int workers, int cores) {
    Neighbours near = ranks_neighbours();
    int devices = t->local * near.sharing;
    t->workers = workers > 0 ? workers : cores / devices > 0 ? cores / devices : 1;
    t->fits = devices * t->workers <= cores;
    t->core = near.place * t->local * t->workers;
}

Team *team_new(const MoeProgram *p, int workers, size_t arena_bytes, Error *e) {
    if (p->devices % ranks_count())
        return error_set(e, "%d devices cannot be dealt evenly to %d processes", p->devices, ranks_count()), NULL;
    Team *t = aligned_alloc(64, sizeof *t + (64 - sizeof *t % 64) % 64);
    if (!t) return error_set(e, "out of memory"), NULL;
    memset(t, 0, sizeof *t);
    t->program = p;
    t->devices = p->devices;
    t->local = p->devices / ranks_count();
    t->first = t->local * ranks_self();
    t->arena_bytes = arena_bytes;
    hwloc_topology_t topo;
    hwloc_topology_init(&topo);
    hwloc_topology_set_flags(topo, HWLOC_TOPOLOGY_FLAG_RESTRICT_TO_CPUBINDING);
    hwloc_topology_load(topo);
    t->topology = topo;
    workers_deal(t, workers, cores_of(topo));
    const char *chaos = getenv("MOE_CHAOS");
    t->chaos = chaos && *chaos ? strtoull(chaos, NULL, 10) | 1u << 31 : 0;
    t->device = aligned_alloc(64, sizeof *t->device * (size_t)t->devices);
    t->worker = xcalloc((size_t)(t->local * t->workers), sizeof *t->worker);
    memset(t->device, 0, sizeof *t->device * (size_t)t->devices);
    for (int i = 0; i < t->local * t->workers; i++) {
        Worker *w = &t->worker[i];
        w->team = t;
        w->dev = &t->device[t->first + i / t->workers];
        w->pub.device = t->first + i / t->workers;
        w->pub.worker = i % t->workers;
        w->pub.workers = t->workers;
        w->pub.team = t;
        mesh_coord(p, w->pub.device, w->pub.coord);
    }
    if (!(t->coll = coll_plans(p, e)) || !cross_plans(t, e) || !arenas_map(t, e) || !threads_start(t, e)) {
        team_free(t);
        return NULL;
    }
    for (int i = 0; i < t->local * t->workers; i++) t->worker[i].pub.arena = t->worker[i].dev->arena;
    return t;
}

void team_free(Team *t) {
    if (!t) return;
    atomic_store(&t->stop, true);
    gate_open(&t->start, atomic_load(&t->start.value) + 1);
    for (int i = 0; i < t->local * t->workers; i++)
        if (t->worker[i].thread) pthread_join(t->worker[i].thread, NULL);
    for (int i = 0; i < t->local * t->workers; i++) gemm_free(&t->worker[i]);
    Error ignored = {0};
    bool quiet = ranks_ok(&ignored); /* else messages under way may still read and write there */
    for (int d = 0; quiet && d < t->devices; d++)
        if (t->device[d].arena) munmap(t->device[d].arena, t->arena_bytes);
    if (quiet) cross_plans_free(t);
    coll_plans_free(t->program, t->coll);
    hwloc_topology_destroy(t->topology);
    free(t->device);
    free(t->worker);
    free(t);
}
