/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/1.1 as far as the admin interface needs it: one request, one answer, and
 * the connection ends. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "ctl_internal.h"
#include "qkdgate/secret.h"

#define ANSWER_MAX ((size_t)64 * 1024 * 1024)

typedef struct line {
	int fd; /* or: */
	qg_conn *conn;
	unsigned timeout_ms;
} line;

static void
line_close(line *l)
{
	qg_conn_close(&l->conn);
	if (l->fd >= 0)
		close(l->fd);
}

/* --- connecting ------------------------------------------------------------------ */

static qg_err
open_socket(const char *path, line *l)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct timeval t = {.tv_sec = l->timeout_ms / 1000};
	if (strlen(path) >= sizeof a.sun_path) {
		fprintf(stderr, "qkdgatectl: %s: too long for the name of a Unix socket\n", path);
		return QG_E_INVAL;
	}
	memcpy(a.sun_path, path, strlen(path) + 1);
	l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (l->fd >= 0 && setsockopt(l->fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t) == 0 &&
	    setsockopt(l->fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t) == 0 &&
	    connect(l->fd, (struct sockaddr *)&a, sizeof a) == 0)
		return QG_OK;
	fprintf(stderr, "qkdgatectl: %s: %s\n", path, strerror(errno));
	return errno == EACCES ? QG_E_DENIED : QG_E_IO;
}

/* https://HOST[:PORT], or with an IPv6 address in brackets. */
static bool
split_url(const char *url, char host[256], unsigned *port)
{
	if (strncmp(url, "https://", 8) != 0)
		return false;
	const char *at = url + 8;
	const bool v6 = at[0] == '[';
	const size_t len = v6 ? strcspn(++at, "]") : strcspn(at, ":/");
	if (len == 0 || len >= 256)
		return false;
	memcpy(host, at, len);
	host[len] = '\0';
	at += len + (v6 && at[len] == ']');
	*port = 443;
	char *end = NULL;
	if (at[0] == ':')
		*port = (unsigned)strtoul(at + 1, &end, 10);
	at = end != NULL ? end : at;
	return *port > 0 && *port < 65536 && (at[0] == '\0' || strcmp(at, "/") == 0);
}

static qg_err
open_https(const ctl_place *p, line *l)
{
	char host[256];
	unsigned port = 0;
	if (!split_url(p->url, host, &port)) {
		fprintf(stderr, "qkdgatectl: %s: give https://HOST:PORT\n", p->url);
		return QG_E_INVAL;
	}
	char why[512] = "";
	qg_err err = qg_tls_check_files(&p->tls, why, sizeof why);
	if (err == QG_OK)
		err = qg_conn_open(host, port, &p->tls, host, l->timeout_ms, &l->conn);
	if (err != QG_OK)
		fprintf(stderr, "qkdgatectl: %s: %s\n", p->url, why[0] != '\0' ? why : qg_err_text(err));
	return err == QG_E_EXPIRED || err == QG_E_MODE || err == QG_E_MISMATCH ? QG_E_AUTH : err;
}

/* --- sending and receiving --------------------------------------------------------- */

static qg_err
send_all(line *l, const char *p, size_t n)
{
	if (l->conn != NULL)
		return qg_conn_send(l->conn, p, n, l->timeout_ms);
	while (n > 0) {
		const ssize_t sent = send(l->fd, p, n, MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			return QG_E_IO;
		p += sent;
		n -= (size_t)sent;
	}
	return QG_OK;
}

/* QG_E_CLOSED at the end. */
static qg_err
receive(line *l, char *p, size_t room, size_t *got)
{
	if (l->conn != NULL)
		return qg_conn_recv_some(l->conn, p, room, l->timeout_ms, got);
	ssize_t n;
	do
		n = recv(l->fd, p, room, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? QG_E_TIMEOUT : QG_E_IO;
	*got = (size_t)n;
	return n == 0 ? QG_E_CLOSED : QG_OK;
}

typedef struct reply {
	char *p;
	size_t len, room;
} reply;

static qg_err
make_room(reply *a)
{
	const size_t room = a->room == 0 ? 16384 : 2 * a->room;
	char *more = room <= ANSWER_MAX ? malloc(room) : NULL;
	if (more == NULL)
		return QG_E_NOMEM;
	if (a->len > 0)
		memcpy(more, a->p, a->len);
	qg_wipe(a->p, a->len); /* it may hold a key, when doctor fetches one */
	free(a->p);
	a->p = more;
	a->room = room;
	return QG_OK;
}

/* The whole length of the answer, once its head is there; 0: not yet known. */
static size_t
whole_length(const reply *a)
{
	a->p[a->len] = '\0';
	const char *head_end = strstr(a->p, "\r\n\r\n");
	const char *field = head_end != NULL ? strcasestr(a->p, "\r\ncontent-length:") : NULL;
	if (field == NULL || field > head_end)
		return 0;
	return (size_t)(head_end - a->p) + 4 + strtoul(field + 17, NULL, 10);
}

static qg_err
receive_answer(line *l, reply *a)
{
	for (;;) {
		size_t got = 0;
		if (a->room - a->len < 2 && make_room(a) != QG_OK)
			return QG_E_NOMEM;
		const qg_err err = receive(l, a->p + a->len, a->room - a->len - 1, &got);
		if (err == QG_E_CLOSED)
			return a->len > 0 ? QG_OK : QG_E_CLOSED;
		if (err != QG_OK)
			return err;
		a->len += got;
		const size_t whole = whole_length(a);
		if (whole != 0 && a->len >= whole)
			return QG_OK;
	}
}

static qg_err
take_apart(reply *a, int *status, char **text, size_t *len)
{
	char *body = a->p != NULL ? strstr(a->p, "\r\n\r\n") : NULL;
	if (body == NULL || strncmp(a->p, "HTTP/1.1 ", 9) != 0)
		return QG_E_PROTO;
	*status = (int)strtol(a->p + 9, NULL, 10);
	body += 4;
	*len = a->len - (size_t)(body - a->p);
	memmove(a->p, body, *len + 1);
	*text = a->p;
	a->p = NULL;
	return QG_OK;
}

static qg_err
exchange(line *l, const char *method, const char *path, const char *body, reply *a)
{
	char head[4096];
	const int n = snprintf(head, sizeof head,
			       "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: "
			       "application/json\r\nContent-Length: %zu\r\n\r\n",
			       method, path, body != NULL ? strlen(body) : (size_t)0);
	if (n < 0 || (size_t)n >= sizeof head)
		return QG_E_RANGE;
	qg_err err = send_all(l, head, (size_t)n);
	if (err == QG_OK && body != NULL)
		err = send_all(l, body, strlen(body));
	return err == QG_OK ? receive_answer(l, a) : err;
}

qg_err
ctl_request(const ctl_place *p, unsigned timeout_s, const char *method, const char *path, const char *body, int *status,
	    char **text, size_t *len)
{
	line l = {.fd = -1, .timeout_ms = timeout_s * 1000};
	reply a = {0};
	qg_err err = p->url != NULL ? open_https(p, &l) : open_socket(p->socket, &l);
	if (err == QG_OK) {
		err = exchange(&l, method, path, body, &a);
		if (err == QG_OK)
			err = take_apart(&a, status, text, len);
		if (err != QG_OK) {
			ctl_progress_end();
			fprintf(stderr, "qkdgatectl: %s: %s\n", p->url != NULL ? p->url : p->socket,
				err == QG_E_AUTH ? "not accepted" : qg_err_text(err));
		}
	}
	line_close(&l);
	if (a.p != NULL)
		qg_wipe(a.p, a.len);
	free(a.p);
	return err;
}

/* --- with JSON ------------------------------------------------------------------------ */

static int
exit_of(qg_err err)
{
	return err == QG_E_DENIED || err == QG_E_AUTH ? CTL_FORBIDDEN : err == QG_E_INVAL ? CTL_USAGE : CTL_UNREACHED;
}

static int
tell_refusal(int status, const json_t *answer)
{
	const char *message = json_string_value(json_object_get(answer, "message"));
	ctl_progress_end();
	if (status == 401)
		message = "the certificate is none of an administrator";
	fprintf(stderr, "qkdgatectl: %s\n", message != NULL ? message : "refused");
	return status == 401 || status == 403 ? CTL_FORBIDDEN : CTL_FAILED;
}

void
ctl_tell_refusal(int status, const char *text, size_t len)
{
	json_t *answer = json_loadb(text, len, 0, NULL);
	(void)tell_refusal(status, answer);
	json_decref(answer);
}

static int
ask(const ctl_options *o, const char *method, const char *path, const char *body, bool also_503, json_t **out)
{
	int status = 0;
	char *text = NULL;
	size_t len = 0;
	const qg_err err = ctl_request(&o->place, o->timeout_s, method, path, body, &status, &text, &len);
	if (err != QG_OK)
		return exit_of(err);
	json_t *answer = json_loadb(text, len, 0, NULL);
	free(text);
	if ((status < 200 || status > 299) && !(also_503 && status == 503)) {
		const int rc = tell_refusal(status, answer);
		json_decref(answer);
		return rc;
	}
	if (answer == NULL) {
		fprintf(stderr, "qkdgatectl: the answer is no JSON\n");
		return CTL_UNREACHED;
	}
	*out = answer;
	return CTL_DONE;
}

int
ctl_ask(const ctl_options *o, const char *method, const char *path, const char *body, json_t **out)
{
	return ask(o, method, path, body, false, out);
}

int
ctl_ask_health(const ctl_options *o, const char *path, json_t **out)
{
	return ask(o, "GET", path, NULL, true, out);
}

char *
ctl_path(const char *before, const char *name, const char *after)
{
	static const char hex[] = "0123456789ABCDEF";
	const size_t room = strlen(before) + 3 * strlen(name) + strlen(after) + 1;
	char *path = malloc(room), *at = path;
	if (path == NULL)
		return NULL;
	at += snprintf(at, room, "%s", before);
	for (const unsigned char *c = (const unsigned char *)name; *c != '\0'; c++) {
		const bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') ||
				   strchr("-._~", *c) != NULL;
		if (!plain)
			*at++ = '%';
		*at++ = plain ? (char)*c : hex[*c >> 4];
		if (!plain)
			*at++ = hex[*c & 15];
	}
	memcpy(at, after, strlen(after) + 1);
	return path;
}

bool
ctl_add_argument(char **path, const char *name, const char *value)
{
	char before[32];
	if (value == NULL)
		return true;
	(void)snprintf(before, sizeof before, "%c%s=", strchr(*path, '?') != NULL ? '&' : '?', name);
	char *encoded = ctl_path(before, value, ""), *whole = NULL;
	if (encoded != NULL && asprintf(&whole, "%s%s", *path, encoded) < 0)
		whole = NULL;
	free(encoded);
	free(*path);
	*path = whole;
	return whole != NULL;
}
