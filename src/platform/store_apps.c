/* SPDX-License-Identifier: Apache-2.0 */
/* Key streams of applications and the runs of their chunks. */
#include <string.h>

#include "store_internal.h"

#define TAG 16
#define END_STATES 2 /* the highest */

qg_err
qg_store_app_stream_put(qg_store *s, qg_app_stream_rec *r)
{
	return qg_sql_insert(s, QG_SQL_APP_STREAM_PUT,
		QG_ARGS(qg_arg_blob(r->ksid.b, sizeof r->ksid.b), qg_arg_text(r->kme), qg_arg_i64(r->owner),
			qg_arg_text(r->uri[0]), qg_arg_text(r->uri[1]), qg_arg_text(r->sae[0]),
			qg_arg_text(r->sae[1]), qg_arg_u64(r->chunk_size), qg_arg_u64(r->max_bps),
			qg_arg_u64(r->min_bps), qg_arg_u64(r->jitter_bps), qg_arg_u64(r->priority),
			qg_arg_u64(r->timeout_ms), qg_arg_u64(r->ttl_s), qg_arg_i64(r->metadata),
			qg_arg_u64(r->state[0]), qg_arg_u64(r->state[1]), qg_arg_u64(r->sequence[0]),
			qg_arg_u64(r->sequence[1]), qg_arg_u64(r->next_index), qg_arg_u64(r->serial),
			qg_arg_i64(r->tell), qg_arg_u64(r->used_ms)),
		&r->row);
}

qg_err
qg_store_app_stream_update(qg_store *s, const qg_app_stream_rec *r)
{
	return qg_sql_change(s, QG_SQL_APP_STREAM_UPDATE,
		QG_ARGS(qg_arg_i64(r->row), qg_arg_u64(r->state[0]), qg_arg_u64(r->state[1]),
			qg_arg_u64(r->sequence[0]), qg_arg_u64(r->sequence[1]), qg_arg_u64(r->next_index),
			qg_arg_u64(r->serial), qg_arg_i64(r->tell), qg_arg_u64(r->used_ms)),
		QG_E_NOTFOUND);
}

qg_err
qg_store_app_stream_delete(qg_store *s, int64_t row)
{
	return qg_sql_change(s, QG_SQL_APP_STREAM_DELETE, QG_ARGS(qg_arg_i64(row)), QG_E_NOTFOUND);
}

qg_err
qg_store_app_block_put(qg_store *s, const qg_app_block_rec *r)
{
	int64_t row;
	return qg_sql_insert(s, QG_SQL_APP_BLOCK_PUT,
		QG_ARGS(qg_arg_i64(r->stream_row), qg_arg_u64(r->first), qg_arg_u64(r->count),
			qg_arg_u64(r->serial), qg_arg_u64(r->hops), qg_arg_i64(r->held),
			qg_arg_u64(r->since_ms), qg_arg_blob(r->tag, TAG),
			qg_arg_blob(r->message, r->message_len), qg_arg_blob(r->sealed, r->sealed_len)),
		&row);
}

qg_err
qg_store_app_block_held(qg_store *s, int64_t stream_row, uint32_t first, uint64_t since_ms)
{
	return qg_sql_change(s, QG_SQL_APP_BLOCK_HELD,
		QG_ARGS(qg_arg_i64(stream_row), qg_arg_u64(first), qg_arg_u64(since_ms)), QG_E_NOTFOUND);
}

qg_err
qg_store_app_block_delete(qg_store *s, int64_t stream_row, uint32_t first)
{
	return qg_sql_change(
		s, QG_SQL_APP_BLOCK_DELETE, QG_ARGS(qg_arg_i64(stream_row), qg_arg_u64(first)), QG_OK);
}

typedef struct stream_load {
	qg_err (*each)(const qg_app_stream_rec *rec, void *ctx);
	void *ctx;
} stream_load;

static qg_err
stream_row(qg_sql_row *r, void *ctx)
{
	const stream_load *load = ctx;
	qg_app_stream_rec rec = {
		.row = qg_row_i64(r, 0),
		.kme = qg_row_text(r, 2),
		.owner = qg_row_small(r, 3, 1) != 0,
		.uri = {qg_row_text(r, 4), qg_row_text(r, 5)},
		.sae = {qg_row_text(r, 6), qg_row_text(r, 7)},
		.chunk_size = qg_row_u32(r, 8),
		.max_bps = qg_row_u32(r, 9),
		.min_bps = qg_row_u32(r, 10),
		.jitter_bps = qg_row_u32(r, 11),
		.priority = qg_row_u32(r, 12),
		.timeout_ms = qg_row_u32(r, 13),
		.ttl_s = qg_row_u32(r, 14),
		.metadata = qg_row_small(r, 15, 1) != 0,
		.state = {(uint8_t)qg_row_small(r, 16, END_STATES), (uint8_t)qg_row_small(r, 17, END_STATES)},
		.sequence = {qg_row_u64(r, 18), qg_row_u64(r, 19)},
		.next_index = qg_row_u64(r, 20),
		.serial = qg_row_u32(r, 21),
		.tell = qg_row_small(r, 22, 1) != 0,
		.used_ms = qg_row_u64(r, 23),
	};
	const uint8_t *ksid = qg_row_bytes(r, 1, sizeof rec.ksid.b);
	if (r->bad)
		return QG_E_CORRUPT;
	memcpy(rec.ksid.b, ksid, sizeof rec.ksid.b);
	return load->each(&rec, load->ctx);
}

qg_err
qg_store_load_app_streams(qg_store *s, qg_err (*each)(const qg_app_stream_rec *rec, void *ctx), void *ctx)
{
	stream_load load = {.each = each, .ctx = ctx};
	return qg_sql_each(s, QG_SQL_APP_STREAM_LOAD, NULL, 0, stream_row, &load);
}

typedef struct block_load {
	qg_err (*each)(const qg_app_block_rec *rec, void *ctx);
	void *ctx;
} block_load;

static qg_err
block_row(qg_sql_row *r, void *ctx)
{
	const block_load *load = ctx;
	size_t tag_len;
	qg_app_block_rec rec = {
		.stream_row = qg_row_i64(r, 0),
		.first = qg_row_u32(r, 1),
		.count = qg_row_u32(r, 2),
		.serial = qg_row_u32(r, 3),
		.hops = qg_row_u32(r, 4),
		.held = qg_row_small(r, 5, 1) != 0,
		.since_ms = qg_row_u64(r, 6),
	};
	rec.tag = qg_row_blob(r, 7, &tag_len);
	rec.message = qg_row_blob(r, 8, &rec.message_len);
	rec.sealed = qg_row_blob(r, 9, &rec.sealed_len);
	if (r->bad || rec.sealed == NULL || (rec.tag != NULL && tag_len != TAG))
		return QG_E_CORRUPT;
	return load->each(&rec, load->ctx);
}

qg_err
qg_store_load_app_blocks(qg_store *s, qg_err (*each)(const qg_app_block_rec *rec, void *ctx), void *ctx)
{
	block_load load = {.each = each, .ctx = ctx};
	return qg_sql_each(s, QG_SQL_APP_BLOCK_LOAD, NULL, 0, block_row, &load);
}
