/* SPDX-License-Identifier: Apache-2.0 */
/* Where the lines of the log go. Nobody waits for a log: a line that cannot be
 * written at once, or soon, is lost and counted. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "log_internal.h"

#define PATH_ROOM 4096
#define FILE_MODE 0640
#define JOURNAL "/run/systemd/journal/socket"
#define RETRY_MS 1000 /* between attempts to open what could not be opened */
#define ENTRY_MAX (QG_LOG_TEXT_MAX + 512)

static struct {
	pthread_mutex_t lock; /* of all but the last two */
	qg_log_to to;
	char path[PATH_ROOM];
	int fd; /* -1: not open */
	uint64_t tried_ms;
	uint64_t told; /* lost lines when the log was told of them last */
	_Atomic bool works;
	_Atomic uint64_t lost;
} out = {.lock = PTHREAD_MUTEX_INITIALIZER, .fd = STDERR_FILENO, .works = true};

/* In real time, whatever clock a test puts in. */
static uint64_t
now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* --- opening -------------------------------------------------------------------- */

static int
open_journal(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	const size_t len = strlen(path);
	if (len >= sizeof a.sun_path) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(a.sun_path, path, len + 1);
	const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0)
		return fd;
	const int cause = errno;
	close(fd);
	errno = cause;
	return -1;
}

/* A name that somebody made a pipe or a device of would have us wait. */
static int
open_file(const char *path)
{
	struct stat st;
	const int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, FILE_MODE);
	if (fd < 0)
		return -1;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		return fd;
	close(fd);
	errno = EINVAL;
	return -1;
}

static int
open_out(void)
{
	switch (out.to) {
	case QG_LOG_FILE:
		return open_file(out.path);
	case QG_LOG_JOURNAL:
		return open_journal(out.path);
	case QG_LOG_STDERR:
		break;
	}
	return STDERR_FILENO;
}

static void
close_out(void)
{
	if (out.fd >= 0 && out.fd != STDERR_FILENO)
		close(out.fd);
	out.fd = -1;
}

/* --- writing -------------------------------------------------------------------- */

static bool
takes_more(int fd, int patience_ms)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	int n;
	do
		n = poll(&p, 1, patience_ms);
	while (n < 0 && errno == EINTR);
	if (n == 0)
		errno = EAGAIN;
	return n > 0 && (p.revents & POLLOUT) != 0;
}

/* A disk that is full may take a part: it is taken back, so that what comes
 * later begins a line. */
static bool
write_line(int fd, const char *line, size_t n)
{
	ssize_t done;
	struct stat st;
	do {
		done = out.to == QG_LOG_FILE ? -1 : send(fd, line, n, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (out.to == QG_LOG_FILE || (done < 0 && errno == ENOTSOCK))
			done = write(fd, line, n);
	} while (done < 0 && errno == EINTR);
	if (done < 0 || (size_t)done == n)
		return done > 0;
	if (out.to == QG_LOG_FILE && fstat(fd, &st) == 0 && st.st_size >= done)
		(void)!ftruncate(fd, st.st_size - done);
	errno = ENOSPC;
	return false;
}

/* The journal's own form: NAME=value, a line each (systemd.journal-fields(7)). */
static size_t
journal_entry(const qg_log_parts *p, char *entry, size_t room)
{
	static const int priorities[] = {
		[QG_LOG_ERROR] = 3, [QG_LOG_WARN] = 4, [QG_LOG_INFO] = 6, [QG_LOG_DEBUG] = 7};
	static const char event_is[] = "event=";
	const bool named = strncmp(p->text, event_is, strlen(event_is)) == 0;
	const char *event = named ? p->text + strlen(event_is) : "";
	const bool asked = p->request[0] != '\0';
	const int n = snprintf(entry, room,
			       "SYSLOG_IDENTIFIER=qkdgate\nPRIORITY=%d\nQKDGATE_MODULE=%s\nQKDGATE_EVENT=%.*s\n%s%s%s"
			       "MESSAGE=%s %s%s%s\n",
			       priorities[p->level], p->module, (int)strcspn(event, " "), event,
			       asked ? "QKDGATE_REQUEST=" : "", p->request, asked ? "\n" : "", p->module, p->text,
			       asked ? " request=" : "", p->request);
	return n > 0 && (size_t)n < room ? (size_t)n : 0;
}

static bool
send_entry(int fd, const qg_log_parts *p)
{
	char entry[ENTRY_MAX];
	const size_t n = journal_entry(p, entry, sizeof entry);
	return n > 0 && send(fd, entry, n, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)n;
}

/* Who failed last is not waited for. */
static bool
write_out(const char *line, size_t n, const qg_log_parts *p)
{
	if (out.fd < 0 || !takes_more(out.fd, atomic_load(&out.works) ? QG_LOG_PATIENCE_MS : 0))
		return false;
	return out.to == QG_LOG_JOURNAL ? send_entry(out.fd, p) : write_line(out.fd, line, n);
}

/* What was restarted or could not be opened is opened again, now and then. */
static bool
try_again(const char *line, size_t n, const qg_log_parts *p)
{
	if (out.to == QG_LOG_STDERR || (out.fd >= 0 && out.to != QG_LOG_JOURNAL) || errno == EAGAIN)
		return false;
	const uint64_t ms = now_ms();
	if (!atomic_load(&out.works) && ms - out.tried_ms < RETRY_MS)
		return false;
	out.tried_ms = ms;
	close_out();
	out.fd = open_out();
	return out.fd >= 0 && write_out(line, n, p);
}

/* --- when it fails ---------------------------------------------------------------- */

/* Standard error, or the journal where that is what fails. */
static void
tell_elsewhere(const qg_log_parts *p)
{
	char line[QG_LOG_LINE_MAX];
	const size_t n = qg_log_form(p, line);
	if (out.to != QG_LOG_STDERR) {
		if (takes_more(STDERR_FILENO, 0))
			(void)!write(STDERR_FILENO, line, n);
		return;
	}
	const int fd = open_journal(JOURNAL);
	if (fd < 0)
		return;
	(void)send_entry(fd, p);
	close(fd);
}

static void
note_failure(int cause)
{
	static const char *const names[] = {
		[QG_LOG_STDERR] = "stderr", [QG_LOG_JOURNAL] = "journal", [QG_LOG_FILE] = "file"};
	char text[QG_LOG_TEXT_MAX];
	atomic_fetch_add(&out.lost, 1);
	if (!atomic_exchange(&out.works, false))
		return;
	(void)snprintf(text, sizeof text, "event=log_failed to=%s path=%s reason=\"%s\"", names[out.to],
		       qg_log_safe(out.path), strerror(cause));
	tell_elsewhere(&(qg_log_parts){.level = QG_LOG_ERROR, .module = "log", .text = text, .request = ""});
}

void
qg_log_put(const char *line, size_t n, const qg_log_parts *p)
{
	uint64_t lost = 0;
	pthread_mutex_lock(&out.lock);
	errno = 0;
	if (write_out(line, n, p) || try_again(line, n, p)) {
		if (!atomic_exchange(&out.works, true)) {
			lost = atomic_load(&out.lost) - out.told;
			out.told += lost;
		}
	} else {
		note_failure(errno);
	}
	pthread_mutex_unlock(&out.lock);
	if (lost > 0)
		qg_log(QG_LOG_WARN, "log", "event=log_recovered lost=%" PRIu64, lost);
}

/* --- from outside ------------------------------------------------------------------- */

void
qg_log_open(qg_log_to to, const char *path)
{
	pthread_mutex_lock(&out.lock);
	close_out();
	out.to = to;
	const int n = snprintf(out.path, sizeof out.path, "%s", to == QG_LOG_STDERR ? "" : path);
	if (n < 0 || (size_t)n >= sizeof out.path)
		out.path[0] = '\0';
	out.fd = open_out();
	out.tried_ms = now_ms();
	atomic_store(&out.works, true);
	pthread_mutex_unlock(&out.lock);
}

qg_err
qg_log_reopen(void)
{
	pthread_mutex_lock(&out.lock);
	const int fd = open_out();
	if (fd >= 0) {
		close_out();
		out.fd = fd;
	}
	pthread_mutex_unlock(&out.lock);
	return fd >= 0 ? QG_OK : QG_E_IO;
}

qg_log_state
qg_log_get_state(void)
{
	return (qg_log_state){.works = atomic_load(&out.works), .lost = atomic_load(&out.lost)};
}
