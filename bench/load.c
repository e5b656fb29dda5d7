/* SPDX-License-Identifier: Apache-2.0 */
/* The load client: many TLS connections over one epoll, closed loop or open loop at a set rate.
 * In the open loop a request is due at its time whether the server keeps up or not, and its
 * latency counts from then: no coordinated omission. Every key had is compared with its twin. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "link.h"
#include "measure.h"

#define ID_CHARS 36u
#define KEY_CHARS 44u /* 32 bytes in base64 */
#define KEYS_MAX 128u
#define STALL_MS 10000
#define EVENTS 64

static const char usage[] =
	"usage: load get     SERVER LOAD --path PATH\n"
	"       load pair    SERVER LOAD --far-url URL --far-certificate FILE --far-key FILE --far-pid PID\n"
	"                    --master SAE --slave SAE --keys N\n"
	"       load connect SERVER LOAD --path PATH [--resume]\n"
	"       load idle    SERVER LOAD --path PATH\n"
	"SERVER: --url URL --ca FILE --certificate FILE --key FILE --pid PID\n"
	"LOAD:   --connections N --requests N [--rate PER_SECOND]\n"
	"get: a path over kept connections. pair: enc_keys of N keys at the master's, then dec_keys at\n"
	"the slave's. connect: a new connection for every request. idle: memory per connection.\n"
	"One line of JSON for each thing measured.\n";

typedef struct options {
	const char *mode, *ca, *path, *master, *slave;
	const char *url, *certificate, *key;
	const char *far_url, *far_certificate, *far_key;
	long pid, far_pid;
	uint32_t connections, requests, keys;
	double rate;
	bool resume;
} options;

/* What is asked, and what becomes of the answers. */
typedef struct work {
	const char *name;
	const options *o;
	const link_target *target;
	pid_t pid;
	uint32_t keys; /* per request */
	char warm[512]; /* path asked once on every connection before */
	size_t (*request)(const struct work *w, uint32_t index, char *out);
	bool (*answer)(const struct work *w, uint32_t index, const char *body, size_t len);
	char *ids;  /* of all requests, one after the other */
	char *text; /* the keys in base64 */
} work;

typedef struct engine {
	const work *w;
	int epoll_fd;
	tls_link **links;
	uint32_t n_links;
	tls_link **idle; /* a stack */
	uint32_t n_idle;
	uint32_t n, begun, done; /* requests */
	uint64_t start_ns, end_ns, cpu_ns;
	double rate;
	bool reconnect, resume, warming;
	uint32_t resumed;
	gnutls_datum_t ticket;
	bench_histogram latency;
} engine;

static bool
complain(const work *w, const char *what, const char *detail, size_t len)
{
	fprintf(stderr, "load: %s: %s: %.*s\n", w->name, what, (int)(len < 300 ? len : 300), detail);
	return false;
}

/* --- what is asked ----------------------------------------------------------- */

static size_t
get_request(const char *path, char *out)
{
	int n = snprintf(out, LINK_OUT_BYTES, "GET %s HTTP/1.1\r\nHost: bench\r\n\r\n", path);
	return n > 0 && (size_t)n < LINK_OUT_BYTES ? (size_t)n : 0;
}

static size_t
ask_path(const work *w, uint32_t index, char *out)
{
	(void)index;
	return get_request(w->o->path, out);
}

static bool
take_any(const work *w, uint32_t index, const char *body, size_t len)
{
	(void)w, (void)index, (void)body;
	return len > 0;
}

static size_t
ask_enc(const work *w, uint32_t index, char *out)
{
	(void)index;
	char path[512];
	int n = snprintf(path, sizeof path, "/api/v1/keys/%s/enc_keys?number=%" PRIu32, w->o->slave, w->keys);
	return n > 0 && (size_t)n < sizeof path ? get_request(path, out) : 0;
}

static const char *
id_of(const work *w, uint32_t index, uint32_t i)
{
	return w->ids + ((size_t)index * w->keys + i) * ID_CHARS;
}

static size_t
ask_dec_one(const work *w, uint32_t index, char *out)
{
	char path[512];
	int n = snprintf(path, sizeof path, "/api/v1/keys/%s/dec_keys?key_ID=%.*s", w->o->master, (int)ID_CHARS,
			 id_of(w, index, 0));
	return n > 0 && (size_t)n < sizeof path ? get_request(path, out) : 0;
}

static size_t
ask_dec_many(const work *w, uint32_t index, char *out)
{
	static const char head[] = "{\"key_IDs\":[", one[] = "{\"key_ID\":\"", end[] = "\"}", tail[] = "]}";
	size_t body = sizeof head - 1 + w->keys * (sizeof one - 1 + ID_CHARS + sizeof end - 1) + w->keys - 1 +
		      sizeof tail - 1;
	int n = snprintf(out, LINK_OUT_BYTES,
			 "POST /api/v1/keys/%s/dec_keys HTTP/1.1\r\nHost: bench\r\n"
			 "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
			 w->o->master, body, head);
	if (n < 0 || (size_t)n + body >= LINK_OUT_BYTES)
		return 0;
	char *at = out + n;
	for (uint32_t i = 0; i < w->keys; i++) {
		if (i > 0)
			*at++ = ',';
		at = mempcpy(at, one, sizeof one - 1);
		at = mempcpy(at, id_of(w, index, i), ID_CHARS);
		at = mempcpy(at, end, sizeof end - 1);
	}
	at = mempcpy(at, tail, sizeof tail - 1);
	return (size_t)(at - out);
}

/* --- key containers ------------------------------------------------------------ */

/* The next member of this name, or NULL; it must have just so many characters. */
static const char *
member(const char **at, const char *end, const char *name, size_t chars)
{
	size_t len = strlen(name);
	const char *found = memmem(*at, (size_t)(end - *at), name, len);
	if (found == NULL || (size_t)(end - found) < len + chars + 1 || found[len + chars] != '"')
		return NULL;
	*at = found + len + chars;
	return found + len;
}

/* Calls `each` with the keys of a container in turn; false: not just w->keys of them. */
static bool
walk_keys(const work *w, uint32_t index, const char *body, size_t len,
	  bool (*each)(const work *w, size_t i, const char *id, const char *key))
{
	const char *at = body, *end = body + len;
	for (uint32_t i = 0; i < w->keys; i++) {
		const char *id = member(&at, end, "\"key_ID\":\"", ID_CHARS);
		const char *key = id != NULL ? member(&at, end, "\"key\":\"", KEY_CHARS) : NULL;
		if (key == NULL)
			return complain(w, "not the container expected", body, len);
		if (!each(w, (size_t)index * w->keys + i, id, key))
			return complain(w, "A KEY DIFFERS FROM ITS TWIN", id, ID_CHARS);
	}
	return memmem(at, (size_t)(end - at), "key_ID", 6) == NULL;
}

static bool
keep_key(const work *w, size_t i, const char *id, const char *key)
{
	memcpy(w->ids + i * ID_CHARS, id, ID_CHARS);
	memcpy(w->text + i * KEY_CHARS, key, KEY_CHARS);
	return true;
}

static bool
same_key(const work *w, size_t i, const char *id, const char *key)
{
	return memcmp(w->ids + i * ID_CHARS, id, ID_CHARS) == 0 &&
	       memcmp(w->text + i * KEY_CHARS, key, KEY_CHARS) == 0;
}

static bool
take_enc(const work *w, uint32_t index, const char *body, size_t len)
{
	return walk_keys(w, index, body, len, keep_key);
}

static bool
take_dec(const work *w, uint32_t index, const char *body, size_t len)
{
	return walk_keys(w, index, body, len, same_key);
}

/* --- the loop ------------------------------------------------------------------- */

static uint64_t
due_of(const engine *e, uint32_t index)
{
	return e->start_ns + (uint64_t)((double)index * 1e9 / e->rate);
}

/* Keeps what the session can be resumed with. */
static void
keep_ticket(engine *e, tls_link *l)
{
	gnutls_datum_t ticket = {0};
	e->resumed += gnutls_session_is_resumed(l->tls) != 0;
	if ((gnutls_session_get_flags(l->tls) & GNUTLS_SFLAGS_SESSION_TICKET) == 0 ||
	    gnutls_session_get_data2(l->tls, &ticket) != 0)
		return;
	gnutls_free(e->ticket.data);
	e->ticket = ticket;
}

static bool
finish(engine *e, tls_link *l)
{
	const work *w = e->w;
	bench_note(&e->latency, bench_now_ns() - l->due_ns);
	if (l->status != 200)
		return complain(w, "not answered 200", l->in, l->in_len);
	if (!e->warming && !w->answer(w, l->index, link_body(l), l->body_len))
		return false;
	if (e->reconnect) {
		keep_ticket(e, l);
		link_close(l);
	}
	e->done++;
	e->idle[e->n_idle++] = l;
	return true;
}

static bool
serve(engine *e, tls_link *l)
{
	bool asked = l->phase != LINK_IDLE;
	switch (link_go(l)) {
	case LINK_READY:
		return asked ? finish(e, l) : complain(e->w, "failed", "answered twice", 300);
	case LINK_FAILED:
		return complain(e->w, "failed", l->why, 300);
	case LINK_WAIT:
		break;
	}
	return true;
}

static bool
begin(engine *e, tls_link *l)
{
	const work *w = e->w;
	l->index = e->begun++;
	l->due_ns = e->rate > 0 ? due_of(e, l->index) : bench_now_ns();
	if (e->reconnect && !link_open(l, w->target, e->epoll_fd, e->resume ? &e->ticket : NULL))
		return complain(w, "cannot connect", strerror(errno), 300);
	size_t len = e->warming ? get_request(w->warm, l->out) : w->request(w, l->index, l->out);
	if (len == 0)
		return complain(w, "a request that is too long", "", 0);
	link_ask(l, len);
	return e->reconnect || serve(e, l);
}

/* Begins what is due; how long to wait for the next one, or -1. */
static bool
dispatch(engine *e, int64_t *wait_ns)
{
	*wait_ns = -1;
	uint64_t now_ns = e->rate > 0 ? bench_now_ns() : 0;
	while (e->n_idle > 0 && e->begun < e->n) {
		if (e->rate > 0 && due_of(e, e->begun) > now_ns) {
			*wait_ns = (int64_t)(due_of(e, e->begun) - now_ns);
			return true;
		}
		if (!begin(e, e->idle[--e->n_idle]))
			return false;
	}
	return true;
}

/* Says who waits for what. */
static bool
complain_stall(const engine *e)
{
	static const char *const phases[] = {
		[LINK_CLOSED] = "closed", [LINK_CONNECTING] = "connecting", [LINK_HANDSHAKE] = "in the handshake",
		[LINK_SENDING] = "sending", [LINK_RECEIVING] = "waiting for an answer", [LINK_IDLE] = "idle",
	};
	fprintf(stderr, "load: %s%s: nothing for 10 s; %" PRIu32 " of %" PRIu32 " begun, %" PRIu32 " done\n",
		e->w->name, e->warming ? " (warming up)" : "", e->begun, e->n, e->done);
	for (size_t phase = 0; phase < sizeof phases / sizeof phases[0]; phase++) {
		uint32_t n = 0;
		for (uint32_t i = 0; i < e->n_links; i++)
			n += e->links[i]->phase == phase;
		if (n > 0)
			fprintf(stderr, "load: %" PRIu32 " connections %s\n", n, phases[phase]);
	}
	return false;
}

static bool
drive(engine *e)
{
	struct epoll_event events[EVENTS];
	while (e->done < e->n) {
		int64_t wait_ns;
		if (!dispatch(e, &wait_ns))
			return false;
		if (e->done == e->n) /* some are answered as soon as they are asked */
			break;
		if (wait_ns < 0)
			wait_ns = (int64_t)STALL_MS * 1000000;
		struct timespec t = {.tv_sec = wait_ns / 1000000000, .tv_nsec = wait_ns % 1000000000};
		int n = epoll_pwait2(e->epoll_fd, events, EVENTS, &t, NULL);
		if (n == 0 && wait_ns >= (int64_t)STALL_MS * 1000000)
			return complain_stall(e);
		for (int i = 0; i < n; i++)
			if (!serve(e, events[i].data.ptr))
				return false;
	}
	return true;
}

static bool
drive_from_start(engine *e, uint32_t n)
{
	e->n = n;
	e->begun = e->done = e->resumed = 0;
	memset(&e->latency, 0, sizeof e->latency);
	e->cpu_ns = bench_cpu_ns(e->w->pid);
	e->start_ns = bench_now_ns();
	bool ok = drive(e);
	e->end_ns = bench_now_ns();
	e->cpu_ns = bench_cpu_ns(e->w->pid) - e->cpu_ns;
	return ok;
}

/* Every connection open, known to the server and asked something once. */
static bool
warm_up(engine *e)
{
	double rate = e->rate;
	e->rate = 0;
	e->warming = true;
	bool ok = true;
	/* One after the other: no accept queue is long enough for all at once. */
	for (uint32_t i = 0; i < e->n_links && ok; i++) {
		tls_link *l = e->links[i];
		size_t len = get_request(e->w->warm, l->out);
		e->n_idle = e->done = 0;
		e->n = e->begun = 1;
		ok = len > 0 && link_open(l, e->w->target, e->epoll_fd, NULL);
		if (!ok)
			return complain(e->w, "cannot connect", strerror(errno), 300);
		link_ask(l, len);
		ok = drive(e);
	}
	for (uint32_t i = 0; i < e->n_links; i++)
		e->idle[i] = e->links[i];
	e->n_idle = e->n_links;
	e->warming = false;
	e->rate = rate;
	return ok;
}

static void
engine_close(engine *e)
{
	for (uint32_t i = 0; i < e->n_links; i++) {
		link_close(e->links[i]);
		free(e->links[i]);
	}
	gnutls_free(e->ticket.data);
	free(e->links);
	free(e->idle);
}

static bool
engine_open(engine *e, const work *w)
{
	memset(e, 0, sizeof *e);
	e->w = w;
	e->rate = w->o->rate;
	e->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	e->links = calloc(w->o->connections, sizeof(tls_link *));
	e->idle = calloc(w->o->connections, sizeof(tls_link *));
	if (e->epoll_fd < 0 || e->links == NULL || e->idle == NULL)
		return complain(w, "cannot begin", strerror(errno), 300);
	for (; e->n_links < w->o->connections; e->n_links++) {
		e->links[e->n_links] = calloc(1, sizeof(tls_link));
		if (e->links[e->n_links] == NULL)
			return complain(w, "out of memory", "", 0);
		e->idle[e->n_idle++] = e->links[e->n_links];
	}
	return true;
}

/* --- what is measured ------------------------------------------------------------- */

static void
report(const engine *e)
{
	double seconds = (double)(e->end_ns - e->start_ns) / 1e9;
	printf("{\"what\": \"%s\", \"requests\": %" PRIu32 ", \"keys\": %" PRIu32 ", \"connections\": %" PRIu32
	       ", \"seconds\": %.4f, \"per_s\": %.1f, \"server_cpu_us\": %.3f, \"resumed\": %" PRIu32,
	       e->w->name, e->n, e->w->keys, e->n_links, seconds, (double)e->n / seconds,
	       (double)e->cpu_ns / 1e3 / (double)e->n, e->resumed);
	static const struct {
		const char *name;
		double part;
	} rows[] = {{"p50_us", 0.5}, {"p99_us", 0.99}, {"p999_us", 0.999}, {"most_us", 1.0}};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		printf(", \"%s\": %.1f", rows[i].name, (double)bench_percentile(&e->latency, rows[i].part) / 1e3);
	puts("}");
}

static bool
measure_kept(const work *w)
{
	engine e;
	bool ok = engine_open(&e, w) && warm_up(&e) && drive_from_start(&e, w->o->requests);
	if (ok)
		report(&e);
	engine_close(&e);
	return ok;
}

static bool
measure_connect(const work *w)
{
	engine e;
	bool ok = engine_open(&e, w);
	e.reconnect = true;
	ok = ok && drive_from_start(&e, 1); /* which also gets a ticket */
	e.resume = w->o->resume;
	ok = ok && drive_from_start(&e, w->o->requests);
	if (ok && e.resumed != (w->o->resume ? e.n : 0))
		ok = complain(w, "sessions were not resumed, or were", "", 0);
	if (ok)
		report(&e);
	engine_close(&e);
	return ok;
}

static bool
measure_idle(const work *w)
{
	engine e;
	uint64_t before = bench_rss_bytes(w->pid);
	bool ok = engine_open(&e, w) && warm_up(&e);
	uint64_t after = bench_rss_bytes(w->pid);
	if (ok)
		printf("{\"what\": \"%s\", \"connections\": %" PRIu32 ", \"rss_before\": %" PRIu64
		       ", \"rss_after\": %" PRIu64 ", \"bytes_per_connection\": %.0f}\n",
		       w->name, e.n_links, before, after, ((double)after - (double)before) / (double)e.n_links);
	engine_close(&e);
	return ok;
}

static bool
status_path(char *out, size_t room, const char *sae)
{
	int n = snprintf(out, room, "/api/v1/keys/%s/status", sae);
	return n > 0 && (size_t)n < room;
}

/* The keys of the first half are the IDs of the second. */
static bool
measure_pair(const options *o, const link_target *near)
{
	link_target far;
	size_t n = (size_t)o->requests * o->keys;
	char *ids = malloc(n * ID_CHARS), *text = malloc(n * KEY_CHARS);
	work enc = {.name = "enc_keys", .o = o, .target = near, .pid = (pid_t)o->pid, .keys = o->keys,
		    .request = ask_enc, .answer = take_enc, .ids = ids, .text = text};
	work dec = {.name = "dec_keys", .o = o, .target = &far, .pid = (pid_t)o->far_pid, .keys = o->keys,
		    .request = o->keys == 1 ? ask_dec_one : ask_dec_many, .answer = take_dec, .ids = ids,
		    .text = text};
	bool ok = ids != NULL && text != NULL && status_path(enc.warm, sizeof enc.warm, o->slave) &&
		  status_path(dec.warm, sizeof dec.warm, o->master);
	if (!link_target_open(&far, o->far_url, o->ca, o->far_certificate, o->far_key))
		ok = complain(&dec, "cannot use", o->far_url, strlen(o->far_url));
	ok = ok && measure_kept(&enc) && measure_kept(&dec);
	link_target_close(&far);
	free(ids);
	free(text);
	return ok;
}

static bool
measure(const options *o, const link_target *t)
{
	static const struct {
		const char *mode;
		bool (*run)(const work *w);
	} modes[] = {{"get", measure_kept}, {"connect", measure_connect}, {"idle", measure_idle}};
	if (strcmp(o->mode, "pair") == 0)
		return measure_pair(o, t);
	for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
		work w = {.name = modes[i].mode, .o = o, .target = t, .pid = (pid_t)o->pid, .request = ask_path,
			  .answer = take_any};
		if (strcmp(o->mode, modes[i].mode) != 0)
			continue;
		int n = snprintf(w.warm, sizeof w.warm, "%s", o->path);
		return n > 0 && (size_t)n < sizeof w.warm && modes[i].run(&w);
	}
	fputs(usage, stderr);
	return false;
}

/* --- options ------------------------------------------------------------------------ */

/* A text goes to `text`, a number to the one of the others that is there. */
typedef struct option_row {
	const char *name;
	const char **text;
	uint32_t *number;
	long *pid;
	double *real;
	bool *flag;
} option_row;

static bool
set_option(const option_row *row, const char *value)
{
	char *end = NULL;
	if (row->flag != NULL)
		return *row->flag = true;
	if (row->text != NULL) {
		*row->text = value;
		return true;
	}
	double v = strtod(value, &end);
	if (end == value || *end != '\0' || !(v >= 0 && v < 4e9))
		return false;
	if (row->number != NULL)
		*row->number = (uint32_t)v;
	if (row->pid != NULL)
		*row->pid = (long)v;
	if (row->real != NULL)
		*row->real = v;
	return true;
}

static bool
read_options(int argc, char **argv, options *o)
{
	const option_row rows[] = {
		{.name = "url", .text = &o->url},
		{.name = "ca", .text = &o->ca},
		{.name = "certificate", .text = &o->certificate},
		{.name = "key", .text = &o->key},
		{.name = "pid", .pid = &o->pid},
		{.name = "far-url", .text = &o->far_url},
		{.name = "far-certificate", .text = &o->far_certificate},
		{.name = "far-key", .text = &o->far_key},
		{.name = "far-pid", .pid = &o->far_pid},
		{.name = "path", .text = &o->path},
		{.name = "master", .text = &o->master},
		{.name = "slave", .text = &o->slave},
		{.name = "keys", .number = &o->keys},
		{.name = "connections", .number = &o->connections},
		{.name = "requests", .number = &o->requests},
		{.name = "rate", .real = &o->rate},
		{.name = "resume", .flag = &o->resume},
	};
	enum { N = sizeof rows / sizeof rows[0] };
	struct option names[N + 1] = {0};
	for (int i = 0; i < N; i++)
		names[i] = (struct option){rows[i].name, rows[i].flag != NULL ? no_argument : required_argument,
					   NULL, i};
	for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;)
		if (c >= N || !set_option(&rows[c], optarg))
			return false;
	if (optind != argc - 1)
		return false;
	o->mode = argv[optind];
	bool pair = strcmp(o->mode, "pair") == 0;
	if (pair && (o->far_url == NULL || o->far_certificate == NULL || o->far_key == NULL || o->master == NULL ||
		     o->slave == NULL || o->keys == 0 || o->keys > KEYS_MAX || o->far_pid == 0))
		return false;
	return o->url != NULL && o->ca != NULL && o->certificate != NULL && o->key != NULL && o->pid != 0 &&
	       (pair || o->path != NULL) && o->connections > 0 && o->requests > 0;
}

int
main(int argc, char **argv)
{
	options o = {0};
	if (!read_options(argc, argv, &o)) {
		fputs(usage, stderr);
		return 2;
	}
	link_target t;
	bool ok = link_target_open(&t, o.url, o.ca, o.certificate, o.key);
	if (!ok)
		fprintf(stderr, "load: cannot use %s with these files\n", o.url);
	ok = ok && measure(&o, &t);
	link_target_close(&t);
	return ok ? 0 : 1;
}
