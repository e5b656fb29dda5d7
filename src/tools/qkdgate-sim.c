/* SPDX-License-Identifier: Apache-2.0 */
/* One end of a simulated QKD link, for demonstrations and tests. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qkdgate-sim/sim_internal.h"

#include "qkdgate/clock.h"
#include "qkdgate/log.h"

#define TICK_MS 100

static const char warning[] =
	"qkdgate-sim: this is a SIMULATION, NOT FOR PRODUCTION: its keys are random numbers\n"
	"qkdgate-sim: that go over the link socket in clear. They protect nothing.\n";

qg_err
sim_init(sim *s, const sim_options *o)
{
	pthread_condattr_t attr;
	*s = (sim){.opt = *o, .link_fd = -1, .tokens_ms = qg_clock_elapsed_ms()};
	if (pthread_condattr_init(&attr) != 0)
		return QG_E_NOMEM;
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->changed, &attr);
	pthread_cond_init(&s->work, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_init(&s->lock, NULL);
	return QG_OK;
}

void
sim_fini(sim *s)
{
	while (s->streams != NULL) {
		sim_stream *st = s->streams;
		st->here = st->there = st->tell_closed = false;
		sim_stream_settle(s, st);
	}
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->changed);
	pthread_cond_destroy(&s->work);
}

/* --- what the operator does to the link -------------------------------------------- */

/* An outage of outage_for_s at the end of every outage_every_s. */
static bool
scheduled_outage(const sim_options *o, uint64_t since_start_ms)
{
	if (o->outage_every_s == 0)
		return false;
	uint64_t every_ms = (uint64_t)o->outage_every_s * 1000;
	return since_start_ms % every_ms >= every_ms - (uint64_t)o->outage_for_s * 1000;
}

static void
set_outage(sim *s, bool on)
{
	pthread_mutex_lock(&s->lock);
	bool news = s->outage != on;
	s->outage = on;
	s->tell_outage = s->tell_outage || news;
	pthread_cond_broadcast(&s->changed);
	pthread_cond_signal(&s->work);
	pthread_mutex_unlock(&s->lock);
	if (news)
		qg_log(QG_LOG_INFO, "sim", "event=outage state=%s", on ? "on" : "off");
}

static void
flip_next(sim *s)
{
	pthread_mutex_lock(&s->lock);
	s->flips_due++;
	pthread_mutex_unlock(&s->lock);
}

/* Says that all is up, then goes on until SIGTERM or SIGINT. */
static void
watch_signals(sim *s, const sigset_t *signals)
{
	const struct timespec tick = {.tv_nsec = TICK_MS * 1000000L};
	uint64_t start_ms = qg_clock_elapsed_ms();
	bool by_hand = false;
	set_outage(s, scheduled_outage(&s->opt, 0));
	qg_log(QG_LOG_INFO, "sim", "event=ready listen=%s port=%u profile=%s transport=%s generator=%s",
	       qg_log_safe(s->opt.listen.host), s->opt.listen.port, s->opt.profile != NULL ? s->opt.profile->name : "any",
	       s->opt.tls ? "tls" : "tcp", s->opt.link_listens ? "yes" : "no");
	for (;;) {
		int sig = sigtimedwait(signals, NULL, &tick);
		if (sig == SIGTERM || sig == SIGINT)
			return;
		if (sig == SIGUSR1)
			flip_next(s);
		if (sig == SIGUSR2)
			by_hand = !by_hand;
		set_outage(s, by_hand || scheduled_outage(&s->opt, qg_clock_elapsed_ms() - start_ms));
	}
}

static void
stop(sim *s)
{
	pthread_mutex_lock(&s->lock);
	s->stopping = true;
	pthread_cond_broadcast(&s->changed);
	pthread_cond_broadcast(&s->work);
	pthread_mutex_unlock(&s->lock);
}

static int
run(sim *s, const sigset_t *signals)
{
	pthread_t link, writer;
	sim_server *server = NULL;
	if (sim_server_start(s, &server) != QG_OK) {
		fprintf(stderr, "qkdgate-sim: cannot listen on %s port %u: %s\n", s->opt.listen.host,
			s->opt.listen.port, strerror(errno));
		return EXIT_FAILURE;
	}
	bool linked = pthread_create(&link, NULL, sim_link_main, s) == 0;
	bool written = linked && pthread_create(&writer, NULL, sim_writer_main, s) == 0;
	if (written)
		watch_signals(s, signals);
	stop(s);
	sim_server_stop(&server);
	sim_link_cut(s);
	if (linked)
		pthread_join(link, NULL);
	if (written)
		pthread_join(writer, NULL);
	return written ? EXIT_SUCCESS : EXIT_FAILURE;
}

int
main(int argc, char **argv)
{
	static sim s;
	sim_options o;
	sigset_t signals;
	int rc = sim_options_parse(argc, argv, &o);
	if (rc != 0)
		return rc == 1 ? EXIT_SUCCESS : 2;
	fputs(warning, stderr);
	if (qg_secret_init() != QG_OK) {
		fprintf(stderr, "qkdgate-sim: out of memory\n");
		return EXIT_FAILURE;
	}
	if (o.tls) {
		char why[256];
		if (qg_tls_check_files(&o.files, why, sizeof why) != QG_OK) {
			fprintf(stderr, "qkdgate-sim: %s\n", why);
			return EXIT_FAILURE;
		}
	}
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGUSR1);
	sigaddset(&signals, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &signals, NULL); /* before any thread: all inherit it */
	signal(SIGPIPE, SIG_IGN);
	qg_log_init(QG_LOG_INFO, QG_LOG_TEXT);
	if (sim_init(&s, &o) != QG_OK) {
		fprintf(stderr, "qkdgate-sim: out of memory\n");
		return EXIT_FAILURE;
	}
	rc = run(&s, &signals);
	sim_fini(&s);
	qg_secret_fini();
	return rc;
}
