/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <grp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "http_internal.h"
#include "qkdgate/bytes.h"
#include "qkdgate/config.h"

#define THREADS_MAX 64u
#define YOUNG_LEAST 8u

/* --- listening ------------------------------------------------------------ */

qg_http_options
qg_http_options_of(const struct qg_config_listener *l)
{
	return (qg_http_options){
		.address = l->address,
		.port = l->port,
		.tls = l->tls,
		.threads = l->threads,
		.max_connections = l->max_connections,
		.max_per_address = l->max_per_address,
		.address_handshakes_per_s = l->address_handshakes_per_s,
		.idle_timeout_s = l->idle_timeout_s,
		.ticket_key_s = l->ticket_key_s,
	};
}

static bool
parse_address(const char *text, unsigned port, struct sockaddr_storage *out, socklen_t *len)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
	memset(out, 0, sizeof *out);
	if (port > 65535)
		return false;
	if (inet_pton(AF_INET, text, &v4.sin_addr) == 1) {
		memcpy(out, &v4, sizeof v4);
		*len = sizeof v4;
		return true;
	}
	if (inet_pton(AF_INET6, text, &v6.sin6_addr) == 1) {
		memcpy(out, &v6, sizeof v6);
		*len = sizeof v6;
		return true;
	}
	return false;
}

static bool
learn_port(int fd, unsigned *port)
{
	struct sockaddr_storage a = {0};
	socklen_t len = sizeof a;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	if (getsockname(fd, (struct sockaddr *)&a, &len) != 0)
		return false;
	memcpy(&v4, &a, sizeof v4);
	memcpy(&v6, &a, sizeof v6);
	*port = ntohs(a.ss_family == AF_INET ? v4.sin_port : v6.sin6_port);
	return true;
}

static bool
set_on(int fd, int option)
{
	int on = 1;
	return setsockopt(fd, SOL_SOCKET, option, &on, sizeof on) == 0;
}

/* With SO_REUSEPORT from the start a second daemon of the same user would
 * silently get half of the connections: so the first socket binds without. */
static bool
bind_and_listen(int fd, const struct sockaddr_storage *a, socklen_t len, bool first)
{
	if (!set_on(fd, SO_REUSEADDR) || (!first && !set_on(fd, SO_REUSEPORT)))
		return false;
	if (bind(fd, (const struct sockaddr *)a, len) != 0)
		return false;
	if (first && !set_on(fd, SO_REUSEPORT))
		return false;
	return listen(fd, SOMAXCONN) == 0;
}

qg_err
qg_listen_open(const char *address, unsigned *port, bool first, int *fd)
{
	struct sockaddr_storage a;
	socklen_t len = 0;
	if (!parse_address(address, *port, &a, &len))
		return QG_E_INVAL;
	int s = socket(a.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (s < 0)
		return QG_E_IO;
	if (!bind_and_listen(s, &a, len, first) || !learn_port(s, port)) {
		int saved = errno;
		close(s);
		errno = saved;
		return QG_E_IO;
	}
	*fd = s;
	return QG_OK;
}

/* --- Unix sockets ---------------------------------------------------------- */

/* The name of a socket outlives a crash. */
static bool
is_left_over(const struct sockaddr_un *a)
{
	struct stat st;
	if (lstat(a->sun_path, &st) != 0 || !S_ISSOCK(st.st_mode))
		return false;
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	bool dead = s >= 0 && connect(s, (const struct sockaddr *)a, sizeof *a) != 0 && errno == ECONNREFUSED;
	if (s >= 0)
		close(s);
	return dead;
}

/* For this user alone until it has its group; nobody can connect before it
 * listens. */
static bool
bind_private(int fd, const struct sockaddr_un *a)
{
	if (is_left_over(a) && unlink(a->sun_path) != 0)
		return false;
	return fchmod(fd, 0600) == 0 && bind(fd, (const struct sockaddr *)a, sizeof *a) == 0;
}

static bool
open_to(const char *path, unsigned mode, const gid_t *gid)
{
	if (gid != NULL && lchown(path, (uid_t)-1, *gid) != 0)
		return false;
	return chmod(path, mode) == 0;
}

static qg_err
find_group(const char *name, gid_t *out)
{
	struct group g, *found = NULL;
	char room[4096];
	if (getgrnam_r(name, &g, room, sizeof room, &found) != 0 || found == NULL)
		return QG_E_NOTFOUND;
	*out = g.gr_gid;
	return QG_OK;
}

qg_err
qg_listen_unix(const char *path, unsigned mode, const char *group, int *fd)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	gid_t gid = 0;
	if (strlen(path) >= sizeof a.sun_path)
		return QG_E_INVAL;
	memcpy(a.sun_path, path, strlen(path) + 1);
	if (group != NULL && find_group(group, &gid) != QG_OK)
		return QG_E_NOTFOUND;
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (s < 0)
		return QG_E_IO;
	bool bound = bind_private(s, &a);
	if (bound && open_to(path, mode, group != NULL ? &gid : NULL) && listen(s, SOMAXCONN) == 0) {
		*fd = s;
		return QG_OK;
	}
	int saved = errno;
	if (bound)
		(void)unlink(path);
	close(s);
	errno = saved;
	return !bound && saved == EADDRINUSE ? QG_E_EXISTS : QG_E_IO;
}

unsigned
qg_listen_threads(unsigned wanted)
{
	cpu_set_t set;
	if (wanted == 0 && sched_getaffinity(0, sizeof set, &set) == 0)
		wanted = (unsigned)CPU_COUNT(&set);
	if (wanted == 0)
		return 1;
	return wanted < THREADS_MAX ? wanted : THREADS_MAX;
}

unsigned
qg_listen_most_young(unsigned max_connections, unsigned threads)
{
	const unsigned most = max_connections / 2 / threads;
	return most > YOUNG_LEAST ? most : YOUNG_LEAST;
}

/* --- counting ------------------------------------------------------------- */

typedef struct resident {
	struct resident *next;
	qg_census_key key;
	unsigned n;
} resident;

#define BUCKETS 1024u

struct qg_census {
	pthread_mutex_t lock;
	unsigned most;
	unsigned most_each;
	unsigned n;
	resident *bucket[BUCKETS];
};

qg_census_key
qg_census_key_of(const struct sockaddr *from)
{
	qg_census_key key = {.bytes = {[10] = 0xff, [11] = 0xff}};
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	if (from->sa_family == AF_INET6) {
		memcpy(&v6, from, sizeof v6);
		memcpy(key.bytes, &v6.sin6_addr, sizeof key.bytes);
	} else if (from->sa_family == AF_INET) {
		memcpy(&v4, from, sizeof v4);
		memcpy(key.bytes + 12, &v4.sin_addr, 4);
	}
	return key;
}

/* The table never holds more than max_connections: a chosen clash of addresses
 * costs little. */
static resident **
find(qg_census *c, const qg_census_key *key)
{
	resident **at = &c->bucket[qg_hash(key->bytes, sizeof key->bytes) % BUCKETS];
	while (*at != NULL && memcmp(&(*at)->key, key, sizeof *key) != 0)
		at = &(*at)->next;
	return at;
}

qg_err
qg_census_new(unsigned most, unsigned most_each, qg_census **out)
{
	qg_census *c = calloc(1, sizeof *c);
	if (c == NULL)
		return QG_E_NOMEM;
	pthread_mutex_init(&c->lock, NULL);
	c->most = most;
	c->most_each = most_each;
	*out = c;
	return QG_OK;
}

void
qg_census_free(qg_census **c)
{
	if (c == NULL || *c == NULL)
		return;
	for (size_t i = 0; i < BUCKETS; i++) {
		for (resident *r = (*c)->bucket[i]; r != NULL;) {
			resident *next = r->next;
			free(r);
			r = next;
		}
	}
	pthread_mutex_destroy(&(*c)->lock);
	free(*c);
	*c = NULL;
}

static bool
has_room(const qg_census *c, const resident *r)
{
	return c->n < c->most && (c->most_each == 0 || r == NULL || r->n < c->most_each);
}

unsigned
qg_census_count(qg_census *c)
{
	pthread_mutex_lock(&c->lock);
	unsigned n = c->n;
	pthread_mutex_unlock(&c->lock);
	return n;
}

bool
qg_census_has_room(qg_census *c, const struct sockaddr *from)
{
	qg_census_key key = qg_census_key_of(from);
	pthread_mutex_lock(&c->lock);
	bool yes = has_room(c, *find(c, &key));
	pthread_mutex_unlock(&c->lock);
	return yes;
}

bool
qg_census_enter(qg_census *c, const struct sockaddr *from, qg_census_key *key)
{
	*key = qg_census_key_of(from);
	pthread_mutex_lock(&c->lock);
	resident **at = find(c, key);
	bool yes = has_room(c, *at);
	if (yes && *at == NULL) {
		*at = calloc(1, sizeof **at);
		if (*at != NULL)
			(*at)->key = *key;
		else
			yes = false;
	}
	if (yes) {
		(*at)->n++;
		c->n++;
	}
	pthread_mutex_unlock(&c->lock);
	return yes;
}

void
qg_census_leave(qg_census *c, const qg_census_key *key)
{
	pthread_mutex_lock(&c->lock);
	resident **at = find(c, key);
	if (*at != NULL) {
		c->n--;
		if (--(*at)->n == 0) {
			resident *gone = *at;
			*at = gone->next;
			free(gone);
		}
	}
	pthread_mutex_unlock(&c->lock);
}
