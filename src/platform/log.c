/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "log_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/request_id.h"

#define SAFE_MAX 128
#define SAFE_RING 8

static const char *const level_names[] = {
	[QG_LOG_ERROR] = "error",
	[QG_LOG_WARN] = "warn",
	[QG_LOG_INFO] = "info",
	[QG_LOG_DEBUG] = "debug",
};

#define MODULES_MAX 32
#define MODULE_ROOM 32

/* Levels that operators set at run time. */
typedef struct own_level {
	char module[MODULE_ROOM];
	qg_log_level level;
} own_level;

static _Atomic qg_log_level max_level = QG_LOG_INFO; /* of modules without one of their own */
static _Atomic qg_log_level widest = QG_LOG_INFO;    /* of all: what is above is dropped at once */
static atomic_uint n_own;
static own_level own[MODULES_MAX];
static pthread_mutex_t own_lock = PTHREAD_MUTEX_INITIALIZER;
static qg_log_format format = QG_LOG_TEXT;

#define TAIL_ROOM 128 /* kept for the request and the end of a line */

/* A line being put together; what does not fit is cut off. */
typedef struct line {
	char *buf;
	size_t len, room;
	bool cut;
} line;

static void
add_char(line *l, char c)
{
	l->cut = l->cut || l->len == l->room;
	if (!l->cut)
		l->buf[l->len++] = c;
}

static void
add(line *l, const char *s)
{
	while (*s != '\0')
		add_char(l, *s++);
}

static void
add_escaped(line *l, const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (s[i] == '"' || s[i] == '\\')
			add_char(l, '\\');
		add_char(l, s[i]);
	}
}

static void
add_time(line *l)
{
	int64_t ms = qg_clock_wall_ms();
	time_t s = (time_t)(ms / 1000);
	struct tm tm;
	char text[40];
	if (gmtime_r(&s, &tm) == NULL)
		tm = (struct tm){0};
	size_t n = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
	int rc = snprintf(text + n, sizeof text - n, ".%03dZ", (int)(ms % 1000));
	if (rc < 0 || (size_t)rc >= sizeof text - n)
		return;
	add(l, text);
}

/* Whether s begins a pair: name, '=', where a name is letters, digits, '_'. */
static bool
at_name(const char *s)
{
	size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
	return n > 0 && s[n] == '=';
}

/* The length of the value at s: up to its closing quote, or up to the blank
 * before the next pair. */
static size_t
value_len(const char *s)
{
	size_t n = 0;
	if (s[0] == '"') {
		n = 1 + strcspn(s + 1, "\"");
		return s[n] == '"' ? n + 1 : n;
	}
	while (s[n] != '\0' && !(s[n] == ' ' && at_name(s + n + 1)))
		n++;
	return n;
}

static void
add_json_member(line *l, const char *name, size_t name_len, const char *value, size_t value_len_bytes)
{
	if (value_len_bytes >= 2 && value[0] == '"' && value[value_len_bytes - 1] == '"') {
		value++;
		value_len_bytes -= 2;
	}
	add(l, ",\"");
	add_escaped(l, name, name_len);
	add(l, "\":\"");
	add_escaped(l, value, value_len_bytes);
	add_char(l, '"');
}

static void
add_json(line *l, const char *text)
{
	while (*text != '\0') {
		const size_t before = l->len;
		size_t name_len = at_name(text) ? strcspn(text, "=") : 0;
		const char *value = name_len > 0 ? text + name_len + 1 : text;
		size_t n = value_len(value);
		if (name_len > 0)
			add_json_member(l, text, name_len, value, n);
		else
			add_json_member(l, "text", 4, value, n);
		if (l->cut) { /* half a member would not be JSON */
			l->len = before;
			return;
		}
		text = value + n;
		text += strspn(text, " ");
	}
}

/* One event stays one line, whatever a caller lets in. */
static void
flatten(char *text)
{
	for (; *text != '\0'; text++)
		if ((unsigned char)*text < 0x20 || (unsigned char)*text > 0x7e)
			*text = '?';
}

void
qg_log_init(qg_log_level level, qg_log_format f)
{
	max_level = level;
	widest = level;
	format = f;
}

/* --- levels at run time -------------------------------------------------------- */

static unsigned
find_own(const char *module)
{
	unsigned i = 0;
	while (i < n_own && strcmp(own[i].module, module) != 0)
		i++;
	return i;
}

static void
widen(void)
{
	qg_log_level most = max_level;
	for (unsigned i = 0; i < n_own; i++)
		most = own[i].level > most ? own[i].level : most;
	widest = most;
}

static qg_err
set_own(const char *module, qg_log_level level)
{
	unsigned i = find_own(module);
	if (i == MODULES_MAX)
		return QG_E_FULL;
	memcpy(own[i].module, module, strlen(module) + 1);
	own[i].level = level;
	if (i == n_own)
		n_own = i + 1;
	return QG_OK;
}

qg_err
qg_log_set_level(const char *module, qg_log_level level)
{
	qg_err err = QG_OK;
	if (module != NULL && (module[0] == '\0' || strlen(module) >= MODULE_ROOM))
		return QG_E_RANGE;
	pthread_mutex_lock(&own_lock);
	if (module == NULL)
		max_level = level;
	else
		err = set_own(module, level);
	widen();
	pthread_mutex_unlock(&own_lock);
	return err;
}

void
qg_log_reset_level(const char *module)
{
	pthread_mutex_lock(&own_lock);
	unsigned i = find_own(module);
	if (i < n_own) {
		own[i] = own[n_own - 1];
		n_own--;
	}
	widen();
	pthread_mutex_unlock(&own_lock);
}

qg_log_level
qg_log_get_level(void)
{
	return max_level;
}

void
qg_log_levels(void (*each)(const char *module, qg_log_level level, void *ctx), void *ctx)
{
	pthread_mutex_lock(&own_lock);
	for (unsigned i = 0; i < n_own; i++)
		each(own[i].module, own[i].level, ctx);
	pthread_mutex_unlock(&own_lock);
}

const char *
qg_log_level_name(qg_log_level level)
{
	return level_names[level];
}

qg_err
qg_log_level_of(const char *name, qg_log_level *out)
{
	for (size_t i = 0; i < sizeof level_names / sizeof level_names[0]; i++)
		if (strcmp(level_names[i], name) == 0) {
			*out = (qg_log_level)i;
			return QG_OK;
		}
	return QG_E_INVAL;
}

/* Locks only where some module has a level of its own. */
bool
qg_log_wants(qg_log_level level, const char *module)
{
	if (level > widest)
		return false;
	if (n_own == 0)
		return level <= max_level;
	pthread_mutex_lock(&own_lock);
	unsigned i = find_own(module);
	qg_log_level most = i < n_own ? own[i].level : max_level;
	pthread_mutex_unlock(&own_lock);
	return level <= most;
}

size_t
qg_log_form(const qg_log_parts *p, char to[QG_LOG_LINE_MAX])
{
	const bool json = format == QG_LOG_JSON;
	line l = {.buf = to, .room = QG_LOG_LINE_MAX - TAIL_ROOM};
	add(&l, json ? "{\"time\":\"" : "");
	add_time(&l);
	add(&l, json ? "\",\"level\":\"" : " ");
	add(&l, level_names[p->level]);
	add(&l, json ? "\",\"module\":\"" : " ");
	add(&l, p->module);
	add(&l, json ? "\"" : " ");
	if (json)
		add_json(&l, p->text);
	else
		add(&l, p->text);
	l.room = QG_LOG_LINE_MAX;
	l.cut = false;
	if (p->request[0] != '\0') {
		add(&l, json ? ",\"request\":\"" : " request=");
		add(&l, p->request);
		add(&l, json ? "\"" : "");
	}
	add(&l, json ? "}\n" : "\n");
	return l.len;
}

void
qg_log(qg_log_level level, const char *module, const char *fmt, ...)
{
	if (!qg_log_wants(level, module))
		return;
	int saved = errno;
	char text[QG_LOG_TEXT_MAX];
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	if (n < 0)
		text[0] = '\0';
	else if ((size_t)n >= sizeof text)
		memcpy(text + sizeof text - 4, "...", 4);
	flatten(text);
	const qg_request_id request = qg_request_id_now();
	const qg_log_parts parts = {.level = level, .module = module, .text = text, .request = request.text};
	char to[QG_LOG_LINE_MAX];
	qg_log_put(to, qg_log_form(&parts, to), &parts);
	errno = saved;
}

const char *
qg_log_safe(const char *text)
{
	static _Thread_local char ring[SAFE_RING][SAFE_MAX + 1];
	static _Thread_local unsigned next;
	char *out = ring[next++ % SAFE_RING];
	size_t n = 0;
	for (; text != NULL && text[n] != '\0' && n < SAFE_MAX; n++) {
		char c = text[n];
		out[n] = (c > ' ' && c < 0x7f && c != '"' && c != '\\') ? c : '?';
	}
	out[n] = '\0';
	return out;
}
