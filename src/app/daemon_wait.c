/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "daemon_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/core_view.h"
#include "qkdgate/log.h"
#include "qkdgate/zeroize.h"

#define TICK_MS 200      /* how soon acts and the tamper switch are seen */
#define LAST_WORDS_MS 500 /* for the audit log and the answer to who zeroized */
#define STUCK_MS 30000

static const int zeroize_signals[] = {
	[QG_ZEROIZE_NO_SIGNAL] = 0, [QG_ZEROIZE_USR1] = SIGUSR1, [QG_ZEROIZE_USR2] = SIGUSR2};

void
qg_daemon_block_signals(const qg_config *cfg, sigset_t *out)
{
	const int zeroize = zeroize_signals[cfg->admin.zeroize_signal];
	sigemptyset(out);
	sigaddset(out, SIGTERM);
	sigaddset(out, SIGINT);
	sigaddset(out, SIGHUP);
	if (zeroize != 0)
		sigaddset(out, zeroize);
	pthread_sigmask(SIG_BLOCK, out, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a write beyond a limit fails instead */
}

/* --- systemd -------------------------------------------------------------------- */

/* sd_notify(3): a datagram to the socket of the environment, '@' for an abstract one. */
void
qg_daemon_notify(const char *state)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	const char *path = getenv("NOTIFY_SOCKET");
	const size_t len = path != NULL ? strlen(path) : 0;
	if ((len < 2 || (path[0] != '/' && path[0] != '@')) || len >= sizeof a.sun_path)
		return;
	memcpy(a.sun_path, path, len);
	if (path[0] == '@')
		a.sun_path[0] = '\0';
	const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	(void)sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&a,
		     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
	close(fd);
}

/* Half the time that systemd waits; 0: it does not. */
static uint64_t
watchdog_ms(void)
{
	const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
	if (usec == NULL || (pid != NULL && strtoul(pid, NULL, 10) != (unsigned long)getpid()))
		return 0;
	return strtoull(usec, NULL, 10) / 2000;
}

/* The dog is fed while the core comes round, not merely while this thread lives. */
static void
feed(daemon_parts *d, uint64_t every_ms, uint64_t *next_ms)
{
	qg_core_figures f;
	const uint64_t now_ms = qg_clock_elapsed_ms();
	if (every_ms == 0 || now_ms < *next_ms)
		return;
	*next_ms = now_ms + every_ms;
	qg_core_view_figures(d->core, &f);
	if (f.beat_ms < STUCK_MS)
		qg_daemon_notify("WATCHDOG=1");
}

/* --- the main thread ---------------------------------------------------------------- */

/* Also where the reload is refused: the file was moved away. */
static void
reopen_log(void)
{
	if (qg_log_reopen() != QG_OK)
		qg_log(QG_LOG_ERROR, "daemon", "event=log_not_reopened");
}

static void
reload(daemon_parts *d)
{
	char why[QG_DAEMON_WHY_ROOM] = "", state[64];
	(void)snprintf(state, sizeof state, "RELOADING=1\nMONOTONIC_USEC=%llu",
		       (unsigned long long)qg_clock_elapsed_ms() * 1000);
	qg_daemon_notify(state);
	const qg_err err = qg_daemon_acts.reload(d, "signal:HUP", why, sizeof why);
	if (err != QG_OK)
		qg_log(QG_LOG_ERROR, "daemon", "event=reload_refused reason=\"%s\"",
		       why[0] != '\0' ? why : qg_err_text(err));
	else
		qg_log(QG_LOG_INFO, "daemon", "event=reloaded");
	qg_daemon_notify("READY=1");
}

static void
zeroize(daemon_parts *d, const char *who)
{
	char why[QG_DAEMON_WHY_ROOM];
	if (!atomic_load(&d->zeroized) && qg_daemon_acts.zeroize(d, who, why, sizeof why) != QG_OK)
		qg_log(QG_LOG_ERROR, "daemon", "event=zeroize_incomplete left=\"%s\"", why);
}

/* Nothing is taken apart in order: it would write again what is destroyed. */
static void
end_if_zeroized(daemon_parts *d)
{
	if (!atomic_load(&d->zeroized))
		return;
	const struct timespec t = {.tv_nsec = LAST_WORDS_MS * 1000000L};
	(void)nanosleep(&t, NULL);
	qg_log(QG_LOG_ERROR, "daemon", "event=ended_zeroized");
	exit(QG_DAEMON_EXIT_ZEROIZED);
}

static bool
is_drained(const daemon_parts *d)
{
	const uint64_t end_ms = atomic_load(&d->drained_ms);
	return end_ms != 0 && qg_clock_elapsed_ms() >= end_ms;
}

/* Whether the gateway is to stop. */
static bool
serve_signal(daemon_parts *d, int sig)
{
	switch (sig) {
	case SIGTERM:
	case SIGINT:
		qg_log(QG_LOG_INFO, "daemon", "event=stopping signal=%d", sig);
		return true;
	case SIGHUP:
		reopen_log();
		reload(d);
		return false;
	case SIGUSR1:
	case SIGUSR2:
		zeroize(d, "signal");
		return false;
	default:
		return false;
	}
}

void
qg_daemon_wait(daemon_parts *d, const sigset_t *signals)
{
	const struct timespec tick = {.tv_nsec = TICK_MS * 1000000L};
	const char *switch_file = d->cfg->admin.zeroize_file;
	const uint64_t every_ms = watchdog_ms();
	uint64_t next_ms = 0;
	qg_daemon_notify("READY=1");
	for (;;) {
		const int sig = sigtimedwait(signals, NULL, &tick);
		if (sig > 0 && serve_signal(d, sig))
			break;
		if (switch_file != NULL && qg_zeroize_file_says(switch_file))
			zeroize(d, "file");
		end_if_zeroized(d);
		if (is_drained(d)) {
			qg_log(QG_LOG_INFO, "daemon", "event=stopping reason=drained");
			break;
		}
		feed(d, every_ms, &next_ms);
	}
	qg_daemon_notify("STOPPING=1");
}
