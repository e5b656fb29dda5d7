/* SPDX-License-Identifier: Apache-2.0 */
/* This runs for every key delivered: text is put together by hand, and what
 * the lines of one event share is made once. */
#include "audit_internal.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>
#include <time.h>

#include "qkdgate/encode.h"

#define KEY_LEN 32
#define RUN_KEY_LEN 16
#define UUID_LEN (QG_UUID_TEXT - 1)
#define TAG_HEX (2 * QG_AUDIT_TAG)

_Static_assert(RUN_KEY_LEN == crypto_shorthash_siphashx24_KEYBYTES, "SipHash key");
_Static_assert(QG_AUDIT_TAG == crypto_shorthash_siphashx24_BYTES, "SipHash tag");
_Static_assert(offsetof(qg_audit_run, common) == QG_AUDIT_TAG, "tag and common part are hashed as one");

static const char seq_is[] = "{\"seq\":";
static const char id_is[] = ",\"id\":\"";
static const char time_is[] = ",\"time\":\"";
static const char tag_is[] = ",\"tag\":\"";
static const char line_end[] = "\"}";
/* A file that follows another begins with a line of this: behind it stand the number and the tag of the line before. */
static const char rotated_is[] = ",\"act\":\"rotated\",\"reason\":\"" QG_AUDIT_FOLLOWS;
#define TIME_LEN 24
#define LAST_SECOND INT64_C(253402300799) /* of the year 9999 */
#define LEN(literal) (sizeof literal - 1)

/* Longest own part: the sequence number has at most 20 digits. */
#define OWN_MAX (LEN(seq_is) + 20 + LEN(id_is) + UUID_LEN + 1)
#define TAG_PART (LEN(tag_is) + TAG_HEX + LEN(line_end))
_Static_assert(OWN_MAX + QG_AUDIT_COMMON_MAX + TAG_PART + 1 <= QG_AUDIT_LINE_MAX, "room for a line");

static const char *const act_names[] = {
	[QG_AUDIT_ISSUED] = "issued",	    [QG_AUDIT_FETCHED] = "fetched",
	[QG_AUDIT_REFUSED] = "refused",	    [QG_AUDIT_DESTROYED] = "destroyed",
	[QG_AUDIT_EPOCH] = "epoch",	    [QG_AUDIT_START] = "start",
	[QG_AUDIT_STOP] = "stop",	    [QG_AUDIT_MADE] = "made",
	[QG_AUDIT_ADMIN] = "admin",
	[QG_AUDIT_VOIDED] = "voided",	    [QG_AUDIT_REPAIRED] = "repaired",
	[QG_AUDIT_ACCEPTED] = "accepted",   [QG_AUDIT_RELAYED] = "relayed",
	[QG_AUDIT_RELEASED] = "released",   [QG_AUDIT_ROTATED] = "rotated",
	[QG_AUDIT_CUT] = "cut",
};

_Static_assert(sizeof act_names / sizeof act_names[0] == QG_AUDIT_ACTS, "every act has its name");

const char *
qg_audit_act_name(size_t act)
{
	return act < QG_AUDIT_ACTS ? act_names[act] : NULL;
}

/* --- text ------------------------------------------------------------------ */

static const char digits[] = "0123456789";

static char *
put(char *p, const char *s, size_t n)
{
	memcpy(p, s, n);
	return p + n;
}

static char *
put_hex(char *p, const uint8_t *b, size_t n)
{
	qg_hex_encode(b, n, p);
	return p + 2 * n;
}

static char *
put_number(char *p, uint64_t v)
{
	char text[20];
	size_t at = sizeof text;
	do
		text[--at] = digits[v % 10];
	while ((v /= 10) > 0);
	return put(p, text + at, sizeof text - at);
}

/* The NUL behind it is written over by what follows. */
static char *
put_uuid(char *p, const qg_uuid *u)
{
	qg_uuid_format(u, p);
	return p + UUID_LEN;
}

static char *
put_escaped(char *p, const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint8_t c = (uint8_t)s[i];
		if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\') {
			*p++ = (char)c;
		} else {
			p = put(p, "\\u00", 4);
			p = put_hex(p, &c, 1);
		}
	}
	return p;
}

static char *
put_member(char *p, const char *name, const char *value, size_t n)
{
	if (n == 0)
		return p;
	p = put(p, ",\"", 2);
	p = put(p, name, strlen(name));
	p = put(p, "\":\"", 3);
	p = put_escaped(p, value, n);
	*p++ = '"';
	return p;
}

/* What all events of one second have in common. */
static void
set_second(qg_audit_chain *c, int64_t second)
{
	time_t s = (time_t)second;
	struct tm tm;
	if (gmtime_r(&s, &tm) == NULL)
		tm = (struct tm){.tm_year = 70, .tm_mday = 1};
	const struct {
		int value, n;
		char after;
	} part[] = {{tm.tm_year + 1900, 4, '-'}, {tm.tm_mon + 1, 2, '-'}, {tm.tm_mday, 2, 'T'},
		    {tm.tm_hour, 2, ':'},	 {tm.tm_min, 2, ':'},	  {tm.tm_sec, 2, '.'}};
	char *p = c->second_text;
	for (size_t i = 0; i < sizeof part / sizeof part[0]; i++) {
		int v = part[i].value;
		for (int k = part[i].n - 1; k >= 0; k--, v /= 10)
			p[k] = digits[v % 10];
		p += part[i].n;
		*p++ = part[i].after;
	}
	assert(p == c->second_text + sizeof c->second_text);
	c->second = second;
}

static char *
put_time(qg_audit_chain *c, char *p, int64_t ms)
{
	if (ms < 0 || ms / 1000 > LAST_SECOND)
		ms = 0;
	if (ms / 1000 != c->second || c->second_text[0] == '\0')
		set_second(c, ms / 1000);
	p = put(p, c->second_text, sizeof c->second_text);
	for (int64_t unit = 100, left = ms % 1000; unit > 0; left %= unit, unit /= 10)
		*p++ = digits[left / unit];
	*p++ = 'Z';
	return p;
}

/* --- the chain ------------------------------------------------------------- */

qg_err
qg_audit_chain_init(qg_audit_chain *c, const uint8_t key[32])
{
	qg_secret *keys;
	qg_err err = qg_secret_new(KEY_LEN + RUN_KEY_LEN, &keys);
	if (err != QG_OK)
		return err;
	memcpy(keys->data, key, KEY_LEN);
	keys->len = keys->room;
	*c = (qg_audit_chain){.keys = keys};
	return QG_OK;
}

void
qg_audit_chain_fini(qg_audit_chain *c)
{
	qg_secret_free(&c->keys);
}

/* The run that is not at hand: room to put a common part together. */
static qg_audit_run *
spare(qg_audit_chain *c)
{
	return &c->run[!c->at];
}

/* The spare run becomes the one at hand, unless its common part is the same. */
static void
set_run(qg_audit_chain *c)
{
	const qg_audit_run *now = &c->run[c->at];
	qg_audit_run *next = spare(c);
	if (next->common_len == now->common_len && memcmp(next->common, now->common, now->common_len) == 0)
		return;
	memcpy(next->before, c->tag, QG_AUDIT_TAG);
	int rc = crypto_generichash(c->keys->data + KEY_LEN, RUN_KEY_LEN, (const uint8_t *)next,
				    QG_AUDIT_TAG + next->common_len, c->keys->data, KEY_LEN);
	assert(rc == 0);
	(void)rc;
	c->at = !c->at;
}

static void
next_tag(const qg_audit_chain *c, const char *own, size_t n, uint8_t tag[QG_AUDIT_TAG])
{
	uint8_t input[QG_AUDIT_TAG + OWN_MAX];
	assert(n <= OWN_MAX);
	memcpy(input, c->tag, QG_AUDIT_TAG);
	memcpy(input + QG_AUDIT_TAG, own, n);
	int rc = crypto_shorthash_siphashx24(tag, input, QG_AUDIT_TAG + n, c->keys->data + KEY_LEN);
	assert(rc == 0);
	(void)rc;
}

void
qg_audit_chain_event(qg_audit_chain *c, const qg_audit_head *h)
{
	qg_audit_run *next = spare(c);
	assert(h->act < sizeof act_names / sizeof act_names[0]);
	assert(h->caller_len <= QG_AUDIT_STRING_MAX && h->peer_len <= QG_AUDIT_STRING_MAX);
	assert(h->reason_len <= QG_AUDIT_STRING_MAX && h->request_len <= QG_REQUEST_ID_MAX);
	const char *act = act_names[h->act];
	char *p = put(next->common, time_is, LEN(time_is));
	p = put_time(c, p, h->time_ms);
	*p++ = '"';
	p = put_member(p, "act", act, strlen(act));
	p = put_member(p, "caller", h->caller, h->caller_len);
	p = put_member(p, "peer", h->peer, h->peer_len);
	if (h->size_bits > 0) {
		p = put(p, ",\"bits\":", 8);
		p = put_number(p, h->size_bits);
	}
	p = put_member(p, "reason", h->reason, h->reason_len);
	p = put_member(p, "request", h->request, h->request_len);
	next->common_len = (size_t)(p - next->common);
	set_run(c);
}

size_t
qg_audit_chain_line(qg_audit_chain *c, const qg_uuid *id, char *out)
{
	const qg_audit_run *run = &c->run[c->at];
	assert(run->common_len > 0);
	char *p = put(out, seq_is, LEN(seq_is));
	p = put_number(p, ++c->seq);
	if (id != NULL) {
		p = put(p, id_is, LEN(id_is));
		p = put_uuid(p, id);
		*p++ = '"';
	}
	uint8_t tag[QG_AUDIT_TAG];
	next_tag(c, out, (size_t)(p - out), tag);
	memcpy(c->tag, tag, sizeof tag);
	p = put(p, run->common, run->common_len);
	p = put(p, tag_is, LEN(tag_is));
	p = put_hex(p, tag, sizeof tag);
	p = put(p, line_end, LEN(line_end));
	*p++ = '\n';
	return (size_t)(p - out);
}

/* --- checking -------------------------------------------------------------- */

/* A line taken apart. */
typedef struct parts {
	uint64_t seq;
	size_t own_len;
	const char *common;
	size_t common_len;
	const char *tag; /* TAG_HEX characters */
} parts;

static bool
begins(const char *p, const char *end, const char *with, size_t n)
{
	return (size_t)(end - p) >= n && memcmp(p, with, n) == 0;
}

/* One to 19 digits without a leading zero; NULL when there is none. */
static const char *
get_number(const char *p, const char *end, uint64_t *out)
{
	const char *start = p;
	uint64_t v = 0;
	while (p < end && p - start < 19 && *p >= '0' && *p <= '9')
		v = v * 10 + (uint64_t)(*p++ - '0');
	if (p == start || *start == '0')
		return NULL;
	*out = v;
	return p;
}

static bool
split(const char *line, size_t n, parts *out)
{
	if (n < TAG_PART || n > QG_AUDIT_LINE_MAX || !begins(line, line + n, seq_is, LEN(seq_is)))
		return false;
	const char *end = line + n - TAG_PART; /* of the common part */
	const char *p = get_number(line + LEN(seq_is), end, &out->seq);
	if (p == NULL)
		return false;
	if (begins(p, end, id_is, LEN(id_is))) {
		if ((size_t)(end - p) < LEN(id_is) + UUID_LEN + 1)
			return false;
		p += LEN(id_is) + UUID_LEN + 1;
	}
	if (!begins(p, end, time_is, LEN(time_is)) || (size_t)(end - p) > QG_AUDIT_COMMON_MAX)
		return false;
	const char *last = line + n - LEN(line_end);
	if (!begins(end, last, tag_is, LEN(tag_is)) || memcmp(last, line_end, LEN(line_end)) != 0)
		return false;
	out->own_len = (size_t)(p - line);
	out->common = p;
	out->common_len = (size_t)(end - p);
	out->tag = end + LEN(tag_is);
	return true;
}

bool
qg_audit_chain_check(qg_audit_chain *c, const char *line, size_t n)
{
	parts part;
	uint8_t tag[QG_AUDIT_TAG];
	char hex[TAG_HEX];
	if (!split(line, n, &part) || part.seq != c->seq + 1)
		return false;
	memcpy(spare(c)->common, part.common, part.common_len);
	spare(c)->common_len = part.common_len;
	set_run(c);
	next_tag(c, line, part.own_len, tag);
	(void)put_hex(hex, tag, sizeof tag);
	/* The text is compared, so that upper case is no other way to write it. */
	if (!qg_equal_ct(hex, part.tag, sizeof hex))
		return false;
	memcpy(c->tag, tag, sizeof tag);
	c->seq = part.seq;
	return true;
}

bool
qg_audit_chain_number(const char *line, size_t n, uint64_t *seq)
{
	parts part;
	if (!split(line, n, &part))
		return false;
	*seq = part.seq;
	return true;
}

bool
qg_audit_chain_begin(qg_audit_chain *c, const char *line, size_t n)
{
	parts part;
	uint64_t seq = 0;
	uint8_t tag[QG_AUDIT_TAG];
	const size_t before = LEN(time_is) + TIME_LEN + 1;
	if (!split(line, n, &part) || part.common_len < before)
		return false;
	const char *p = part.common + before, *end = part.common + part.common_len;
	if (!begins(p, end, rotated_is, LEN(rotated_is)))
		return false;
	p = get_number(p + LEN(rotated_is), end, &seq);
	if (p == NULL || end - p != 1 + TAG_HEX + 1 || *p != ' ' || seq + 1 != part.seq ||
	    qg_hex_decode(p + 1, TAG_HEX, tag, sizeof tag) != QG_OK)
		return false;
	c->seq = seq;
	memcpy(c->tag, tag, sizeof tag);
	return true;
}

size_t
qg_audit_chain_follow(qg_audit_chain *c, int64_t time_ms, char *out)
{
	char reason[LEN(QG_AUDIT_FOLLOWS) + 20 + 1 + TAG_HEX];
	char *p = put(reason, QG_AUDIT_FOLLOWS, LEN(QG_AUDIT_FOLLOWS));
	p = put_number(p, c->seq);
	*p++ = ' ';
	p = put_hex(p, c->tag, QG_AUDIT_TAG);
	const qg_audit_head head = {.time_ms = time_ms, .act = QG_AUDIT_ROTATED, .caller = "", .peer = "",
				    .reason = reason, .reason_len = (uint16_t)(p - reason)};
	qg_audit_chain_event(c, &head);
	return qg_audit_chain_line(c, NULL, out);
}

bool
qg_audit_chain_skip(qg_audit_chain *c, const char *line, size_t n, bool *other_run)
{
	parts part;
	qg_audit_run *last = spare(c);
	if (!split(line, n, &part) || qg_hex_decode(part.tag, TAG_HEX, c->tag, QG_AUDIT_TAG) != QG_OK)
		return false;
	*other_run = part.common_len != last->common_len ||
		     memcmp(part.common, last->common, part.common_len) != 0;
	memcpy(last->common, part.common, part.common_len);
	last->common_len = part.common_len;
	c->run[c->at].common_len = 0;
	c->seq = part.seq;
	return true;
}
