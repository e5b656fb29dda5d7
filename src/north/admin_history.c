/* SPDX-License-Identifier: Apache-2.0 */
/* What went in and out of each stream, and what lay there, over the last hour and the
 * last day: rings in memory, 12 KiB for each stream, that begin with the process. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "admin_internal.h"
#include "qkdgate/clock.h"

#define POINTS_MAX 360

static const struct {
	const char *name;
	uint32_t step_s;
	size_t points;
} spans[QG_ADMIN_SPANS] = {{"hour", 10, 360}, {"day", 240, 360}};

typedef struct point {
	float in_bps, out_bps;
	double stock_bytes;
} point;

/* The slot that runs is the one at `count`. */
typedef struct ring {
	uint64_t slot;        /* of the running one: elapsed time by step */
	uint64_t in, out;     /* bits until its begin */
	uint64_t count;       /* finished ones, since the start */
	point at[POINTS_MAX];
} ring;

struct qg_admin_history {
	bool begun;
	uint64_t now_ms, in, out, stock_bytes; /* of the last look */
	uint64_t from_ms;                      /* of the first one */
	ring of[QG_ADMIN_SPANS];
};

qg_admin_history *
qg_admin_history_new(void)
{
	return calloc(1, sizeof(qg_admin_history));
}

void
qg_admin_history_free(qg_admin_history *h)
{
	free(h);
}

static float
rate(uint64_t bits, double took_s)
{
	return (float)((double)bits / took_s);
}

/* All slots that ended since the last look get the same share: there is more than one
 * only after the machine stood still. */
static void
turn(ring *r, size_t span, uint64_t now_ms, const qg_admin_history *h)
{
	const uint64_t slot = now_ms / 1000 / spans[span].step_s, ended = slot - r->slot;
	if (ended == 0)
		return;
	const double took_s = (double)ended * spans[span].step_s;
	const point p = {.in_bps = rate(h->in - r->in, took_s),
			 .out_bps = rate(h->out - r->out, took_s),
			 .stock_bytes = (double)h->stock_bytes};
	for (uint64_t i = 0; i < ended && i < spans[span].points; i++)
		r->at[(r->count + i) % spans[span].points] = p;
	r->count += ended;
	r->slot = slot;
	r->in = h->in;
	r->out = h->out;
}

void
qg_admin_history_note(qg_admin_history *h, uint64_t now_ms, uint64_t in, uint64_t out, uint64_t stock_bytes)
{
	for (size_t i = 0; i < QG_ADMIN_SPANS; i++) {
		if (!h->begun)
			h->of[i] = (ring){.slot = now_ms / 1000 / spans[i].step_s, .in = in, .out = out};
	}
	if (!h->begun)
		h->from_ms = now_ms;
	h->begun = true;
	h->now_ms = now_ms;
	h->in = in;
	h->out = out;
	h->stock_bytes = stock_bytes;
	for (size_t i = 0; i < QG_ADMIN_SPANS; i++)
		turn(&h->of[i], i, now_ms, h);
}

bool
qg_admin_history_span(const char *name, size_t *out)
{
	for (size_t i = 0; i < QG_ADMIN_SPANS; i++) {
		if (strcmp(spans[i].name, name) != 0)
			continue;
		*out = i;
		return true;
	}
	return false;
}

static void
append(json_t *in, json_t *out, json_t *stock, const point *p)
{
	(void)json_array_append_new(in, json_real((double)p->in_bps));
	(void)json_array_append_new(out, json_real((double)p->out_bps));
	(void)json_array_append_new(stock, json_integer((json_int_t)p->stock_bytes));
}

/* The running slot comes last, over the part of it that has passed. */
json_t *
qg_admin_history_json(const qg_admin_history *h, size_t span)
{
	const ring *const r = &h->of[span];
	const uint64_t points = spans[span].points, n = r->count < points ? r->count : points;
	json_t *in = json_array(), *out = json_array(), *stock = json_array();
	for (uint64_t i = r->count - n; i < r->count; i++)
		append(in, out, stock, &r->at[i % points]);
	const uint64_t slot_ms = r->slot * spans[span].step_s * 1000;
	const uint64_t begun_ms = slot_ms > h->from_ms ? slot_ms : h->from_ms;
	const uint64_t passed_ms = h->now_ms > begun_ms ? h->now_ms - begun_ms : 0;
	const double passed_s = passed_ms > 0 ? (double)passed_ms / 1000.0 : 1.0;
	append(in, out, stock,
	       &(point){.in_bps = rate(h->in - r->in, passed_s),
			.out_bps = rate(h->out - r->out, passed_s),
			.stock_bytes = (double)h->stock_bytes});
	const uint64_t age_ms = qg_clock_elapsed_ms() - h->now_ms;
	return json_pack("{s:s,s:i,s:i,s:I,s:f,s:o,s:o,s:o}", "span", spans[span].name, "step_s", (int)spans[span].step_s,
			 "most", (int)points + 1, "until_ms", (json_int_t)(qg_clock_wall_ms() - (int64_t)age_ms),
			 "last_s", (double)passed_ms / 1000.0, "in_bps", in, "out_bps", out, "stock_bytes", stock);
}

static bool
take_span(qg_http_request *http, size_t *span)
{
	*span = 0;
	for (size_t i = 0; i < qg_http_query_count(http); i++) {
		const char *name = NULL, *value = NULL;
		qg_http_query_at(http, i, &name, &value);
		if (strcmp(name, "span") == 0 && qg_admin_history_span(value, span))
			continue;
		qg_admin_answer_error(http, QG_E_INVAL, "give span=hour or span=day, and nothing else");
		return false;
	}
	return true;
}

void
qg_admin_on_history(qg_http_request *http, void *admin)
{
	qg_admin *a = admin;
	size_t span = 0;
	const long i = qg_admin_find_stream(a, http, qg_http_path_part(http, 0));
	if (i >= 0 && take_span(http, &span))
		qg_admin_answer(http, 200, qg_admin_rates_history(a->rates, (size_t)i, span));
}
