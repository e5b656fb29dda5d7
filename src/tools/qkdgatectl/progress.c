/* SPDX-License-Identifier: Apache-2.0 */
/* A bar for work that takes long, on standard error where that is a terminal. A
 * thread draws it, so that it also moves while an answer is awaited. */
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ctl_internal.h"
#include "qkdgate/clock.h"

#define CELLS 24
#define TICK_MS 100
#define WHAT_ROOM 48

static struct {
	pthread_mutex_t lock;
	pthread_cond_t ended;
	pthread_t thread;
	bool shown;
	unsigned done, total; /* total 0: nobody knows how long it takes */
	uint64_t begun_ms;
	char what[WHAT_ROOM];
} bar = {.lock = PTHREAD_MUTEX_INITIALIZER, .ended = PTHREAD_COND_INITIALIZER};

/* Under the lock. */
static void
draw(void)
{
	char cells[CELLS + 1];
	const uint64_t took_ms = qg_clock_elapsed_ms() - bar.begun_ms;
	const unsigned at = (unsigned)(took_ms / TICK_MS % CELLS);
	for (unsigned i = 0; i < CELLS; i++) {
		const bool full = bar.total > 0 ? i * bar.total < bar.done * CELLS : i == at;
		cells[i] = full ? '#' : '.';
	}
	cells[CELLS] = '\0';
	fprintf(stderr, "\r\033[K[%s] %s, %llu s", cells, bar.what, (unsigned long long)took_ms / 1000);
	(void)fflush(stderr);
}

static void *
draw_on(void *unused)
{
	(void)unused;
	pthread_mutex_lock(&bar.lock);
	while (bar.shown) {
		struct timespec t;
		draw();
		clock_gettime(CLOCK_REALTIME, &t);
		t.tv_nsec += TICK_MS * 1000000L;
		t.tv_sec += t.tv_nsec / 1000000000L;
		t.tv_nsec %= 1000000000L;
		(void)pthread_cond_timedwait(&bar.ended, &bar.lock, &t);
	}
	fprintf(stderr, "\r\033[K");
	(void)fflush(stderr);
	pthread_mutex_unlock(&bar.lock);
	return NULL;
}

static bool
is_for_people(const ctl_options *o)
{
	const char *term = getenv("TERM");
	return !o->json && isatty(STDERR_FILENO) == 1 && term != NULL && strcmp(term, "dumb") != 0;
}

bool
ctl_progress_begin(const ctl_options *o, const char *what, unsigned done, unsigned total)
{
	if (!is_for_people(o) || bar.shown)
		return false;
	bar.shown = true;
	bar.done = done;
	bar.total = total;
	bar.begun_ms = qg_clock_elapsed_ms();
	(void)snprintf(bar.what, sizeof bar.what, "%s", what);
	draw();
	if (pthread_create(&bar.thread, NULL, draw_on, NULL) != 0)
		bar.shown = false;
	return bar.shown;
}

void
ctl_progress_at(unsigned done, const char *what)
{
	pthread_mutex_lock(&bar.lock);
	bar.done = done;
	(void)snprintf(bar.what, sizeof bar.what, "%s", what);
	pthread_mutex_unlock(&bar.lock);
}

void
ctl_progress_end(void)
{
	pthread_mutex_lock(&bar.lock);
	const bool shown = bar.shown;
	bar.shown = false;
	pthread_cond_signal(&bar.ended);
	pthread_mutex_unlock(&bar.lock);
	if (shown)
		(void)pthread_join(bar.thread, NULL);
}
