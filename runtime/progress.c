/* progress.c: how a run tells where it is. On a terminal, one line rewritten at most ten times a second; else one line
 * per step, `step N name X … tokens/s R`, values with 9 significant digits (an f32 in full). */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "host.h"
#include "ranks.h"

double clock_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A launcher gives rank 0 a terminal of its own, whatever stands at the other end: plain lines then. */
void progress_begin(Progress *p, int64_t step) {
    const char *term = getenv("TERM"), *none = getenv("NO_COLOR");
    *p = (Progress){.tty = ranks_count() == 1 && isatty(STDOUT_FILENO) && term && strcmp(term, "dumb") != 0,
                    .first = step};
    p->color = p->tty && !(none && *none);
    p->began = p->last = clock_seconds();
}

static void line_terminal(const Progress *p, int64_t step, int64_t steps, double left, const char *name, double value) {
    int64_t s = left < 0 ? 0 : (int64_t)(left + 0.5);
    printf("\r\033[K%sstep %lld/%lld%s  %s %.4f  %.0f tokens/s  %lld:%02lld left", p->color ? "\033[1m" : "",
           (long long)step, (long long)steps, p->color ? "\033[0m" : "", name, value, p->rate, (long long)(s / 60),
           (long long)(s % 60));
}

void progress_step(Progress *p, int64_t step, int64_t steps, double seconds_left, int64_t tokens, int n,
                   const char *const *names, const double *values) {
    double now = clock_seconds(), took = now - p->last;
    double rate = took > 0 ? (double)tokens / took : 0;
    p->last = now;
    p->rate = p->rate == 0 ? rate : 0.9 * p->rate + 0.1 * rate;
    if (p->tty) {
        double by_steps = (double)(steps - step) * (now - p->began) / (double)(step - p->first);
        static double shown;
        if (now - shown < 0.1 && step < steps) return;
        shown = now;
        line_terminal(p, step, steps, by_steps < seconds_left ? by_steps : seconds_left, names[0], values[0]);
    } else {
        printf("step %lld", (long long)step);
        for (int i = 0; i < n; i++) printf(" %s %.9g", names[i], values[i]);
        printf(" tokens/s %.0f\n", rate);
    }
    fflush(stdout);
}

void progress_end(Progress *p) {
    if (p->tty) putchar('\n');
    fflush(stdout);
}
