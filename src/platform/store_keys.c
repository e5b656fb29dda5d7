/* SPDX-License-Identifier: Apache-2.0 */
/* Epochs and their segments. */
#include <string.h>

#include "store_internal.h"

#define PROBE 16
#define TAG 16
#define SEGMENT_USES 255

qg_err
qg_store_epoch_put(qg_store *s, qg_epoch_rec *rec)
{
	if (rec->probe != NULL && rec->probe_len != PROBE)
		return QG_E_INVAL;
	return qg_sql_insert(s, QG_SQL_EPOCH_PUT,
		QG_ARGS(qg_arg_text(rec->stream), qg_arg_blob(rec->ksid.b, sizeof rec->ksid.b),
			qg_arg_blob(rec->epoch, sizeof rec->epoch), qg_arg_i64(rec->state),
			qg_arg_i64(rec->opener), qg_arg_u64(rec->chunk_size), qg_arg_u64(rec->segment_chunks),
			qg_arg_u64(rec->mark), qg_arg_u64(rec->seen_mark), qg_arg_u64(rec->next_segment),
			qg_arg_u64(rec->next_index), qg_arg_blob(rec->root_out, rec->root_out_len),
			qg_arg_blob(rec->root_in, rec->root_in_len), qg_arg_blob(rec->probe, rec->probe_len),
			qg_arg_u64(rec->probe_index), qg_arg_i64(rec->created_ms), qg_arg_u64(rec->end_ms)),
		&rec->row);
}

qg_err
qg_store_epoch_update(qg_store *s, const qg_epoch_rec *rec)
{
	if (rec->probe != NULL && rec->probe_len != PROBE)
		return QG_E_INVAL;
	return qg_sql_change(s, QG_SQL_EPOCH_UPDATE,
		QG_ARGS(qg_arg_i64(rec->row), qg_arg_i64(rec->state), qg_arg_u64(rec->segment_chunks),
			qg_arg_u64(rec->mark), qg_arg_u64(rec->seen_mark), qg_arg_u64(rec->next_segment),
			qg_arg_u64(rec->next_index), qg_arg_blob(rec->root_out, rec->root_out_len),
			qg_arg_blob(rec->root_in, rec->root_in_len), qg_arg_blob(rec->probe, rec->probe_len),
			qg_arg_u64(rec->probe_index), qg_arg_u64(rec->end_ms)),
		QG_E_NOTFOUND);
}

qg_err
qg_store_epoch_mark(qg_store *s, int64_t row, uint64_t mark)
{
	return qg_sql_change(s, QG_SQL_EPOCH_MARK, QG_ARGS(qg_arg_i64(row), qg_arg_u64(mark)), QG_E_NOTFOUND);
}

qg_err
qg_store_epoch_delete(qg_store *s, int64_t row)
{
	return qg_sql_change(s, QG_SQL_EPOCH_DELETE, QG_ARGS(qg_arg_i64(row)), QG_E_NOTFOUND);
}

static bool
used_fits(uint32_t count, size_t used_len)
{
	return used_len == (size_t)count / 8 + (count % 8 != 0);
}

qg_err
qg_store_segment_put(qg_store *s, qg_segment_rec *rec)
{
	int64_t row;
	if (rec->tag == NULL || rec->used == NULL || !used_fits(rec->count, rec->used_len))
		return QG_E_INVAL;
	qg_err err = qg_sql_insert(s, QG_SQL_SEGMENT_PUT,
		QG_ARGS(qg_arg_i64(rec->epoch_row), qg_arg_u64(rec->number), qg_arg_i64(rec->ours),
			qg_arg_i64(rec->use), qg_arg_i64(rec->state), qg_arg_u64(rec->first_index),
			qg_arg_u64(rec->count), qg_arg_i64(rec->root), qg_arg_blob(rec->tag, TAG),
			qg_arg_u64(rec->born_ms), qg_arg_i64(rec->ready_wall_ms), qg_arg_u64(rec->issue_s),
			qg_arg_u64(rec->fetch_s)),
		&row);
	if (err == QG_OK)
		err = qg_sql_change(s, QG_SQL_SEGMENT_PUT_BLOB,
			QG_ARGS(qg_arg_i64(row), qg_arg_blob(rec->sealed, rec->sealed_len),
				qg_arg_blob(rec->message, rec->message_len)),
			QG_E_IO);
	if (err == QG_OK)
		err = qg_sql_change(s, QG_SQL_SEGMENT_PUT_USED,
			QG_ARGS(qg_arg_i64(row), qg_arg_blob(rec->used, rec->used_len)), QG_E_IO);
	if (err == QG_OK)
		rec->row = row;
	return err;
}

qg_err
qg_store_segment_confirm(qg_store *s, int64_t row, int64_t ready_wall_ms, uint32_t hops)
{
	return qg_sql_change(s, QG_SQL_SEGMENT_CONFIRM,
		QG_ARGS(qg_arg_i64(row), qg_arg_i64(ready_wall_ms), qg_arg_u64(hops)), QG_E_STATE);
}

qg_err
qg_store_segment_sent(qg_store *s, int64_t row, uint64_t born_ms)
{
	return qg_sql_change(
		s, QG_SQL_SEGMENT_SENT, QG_ARGS(qg_arg_i64(row), qg_arg_u64(born_ms)), QG_E_NOTFOUND);
}

/* A segment that is gone has nothing left to use either. */
qg_err
qg_store_segment_use(qg_store *s, int64_t row, const uint8_t *was, const uint8_t *now, size_t len)
{
	return qg_sql_change(s, QG_SQL_SEGMENT_USE,
		QG_ARGS(qg_arg_i64(row), qg_arg_blob(was, len), qg_arg_blob(now, len)), QG_E_CONSUMED);
}

typedef struct used_copy {
	uint8_t *out;
	size_t len;
	bool found;
} used_copy;

static qg_err
used_row(qg_sql_row *r, void *ctx)
{
	used_copy *copy = ctx;
	const uint8_t *used = qg_row_bytes(r, 0, copy->len);
	if (r->bad)
		return QG_E_CORRUPT;
	memcpy(copy->out, used, copy->len);
	copy->found = true;
	return QG_OK;
}

qg_err
qg_store_segment_used(qg_store *s, int64_t row, uint8_t *out, size_t len)
{
	used_copy copy = {.len = len};
	copy.out = out;
	qg_err err = qg_sql_each(s, QG_SQL_SEGMENT_USED, QG_ARGS(qg_arg_i64(row)), used_row, &copy);
	if (err != QG_OK)
		return err;
	return copy.found ? QG_OK : QG_E_NOTFOUND;
}

qg_err
qg_store_segment_reseal(qg_store *s, int64_t row, const uint8_t *sealed, size_t len)
{
	return qg_sql_change(
		s, QG_SQL_SEGMENT_RESEAL, QG_ARGS(qg_arg_i64(row), qg_arg_blob(sealed, len)), QG_E_NOTFOUND);
}

qg_err
qg_store_segment_delete(qg_store *s, int64_t row)
{
	return qg_sql_change(s, QG_SQL_SEGMENT_DELETE, QG_ARGS(qg_arg_i64(row)), QG_E_NOTFOUND);
}

typedef struct epoch_load {
	qg_err (*each)(const qg_epoch_rec *rec, void *ctx);
	void *ctx;
} epoch_load;

static qg_err
epoch_row(qg_sql_row *r, void *ctx)
{
	const epoch_load *load = ctx;
	size_t probe_len, root_out_len, root_in_len;
	qg_epoch_rec rec = {
		.row = qg_row_i64(r, 0),
		.stream = qg_row_text(r, 1),
		.state = (qg_epoch_state)qg_row_small(r, 4, QG_EPOCH_DRAINING),
		.opener = qg_row_small(r, 5, 1) != 0,
		.chunk_size = qg_row_u32(r, 6),
		.segment_chunks = qg_row_u32(r, 7),
		.mark = qg_row_u64(r, 8),
		.seen_mark = qg_row_u64(r, 9),
		.next_segment = qg_row_u32(r, 10),
		.next_index = qg_row_u64(r, 11),
		.probe_index = qg_row_u64(r, 15),
		.created_ms = qg_row_i64(r, 16),
		.end_ms = qg_row_u64(r, 17),
	};
	const uint8_t *ksid = qg_row_bytes(r, 2, sizeof rec.ksid.b);
	const uint8_t *epoch = qg_row_bytes(r, 3, sizeof rec.epoch);
	rec.root_out = qg_row_blob(r, 12, &root_out_len);
	rec.root_in = qg_row_blob(r, 13, &root_in_len);
	rec.probe = qg_row_blob(r, 14, &probe_len);
	if (r->bad || (rec.probe != NULL && probe_len != PROBE))
		return QG_E_CORRUPT;
	memcpy(rec.ksid.b, ksid, sizeof rec.ksid.b);
	memcpy(rec.epoch, epoch, sizeof rec.epoch);
	rec.root_out_len = root_out_len;
	rec.root_in_len = root_in_len;
	rec.probe_len = probe_len;
	return load->each(&rec, load->ctx);
}

qg_err
qg_store_load_epochs(qg_store *s, qg_err (*each)(const qg_epoch_rec *rec, void *ctx), void *ctx)
{
	epoch_load load = {each, ctx};
	return qg_sql_each(s, QG_SQL_EPOCH_LOAD, NULL, 0, epoch_row, &load);
}

typedef struct segment_load {
	qg_err (*each)(const qg_segment_rec *rec, void *ctx);
	void *ctx;
} segment_load;

static qg_err
segment_row(qg_sql_row *r, void *ctx)
{
	const segment_load *load = ctx;
	size_t sealed_len, used_len, message_len;
	qg_segment_rec rec = {
		.row = qg_row_i64(r, 0),
		.epoch_row = qg_row_i64(r, 1),
		.number = qg_row_u32(r, 2),
		.ours = qg_row_small(r, 3, 1) != 0,
		.use = (uint8_t)qg_row_small(r, 4, SEGMENT_USES),
		.state = (qg_segment_state)qg_row_small(r, 5, QG_SEGMENT_CONFIRMED),
		.first_index = qg_row_u64(r, 6),
		.count = qg_row_u32(r, 7),
		.root = (uint8_t)qg_row_small(r, 8, 1),
		.sealed = qg_row_blob(r, 9, &sealed_len),
		.used = qg_row_blob(r, 10, &used_len),
		.message = qg_row_blob(r, 11, &message_len),
		.tag = qg_row_bytes(r, 12, TAG),
		.born_ms = qg_row_u64(r, 13),
		.ready_wall_ms = qg_row_i64(r, 14),
		.issue_s = qg_row_u32(r, 15),
		.fetch_s = qg_row_u32(r, 16),
		.hops = qg_row_u32(r, 17),
	};
	if (r->bad || rec.used == NULL || !used_fits(rec.count, used_len))
		return QG_E_CORRUPT;
	rec.sealed_len = sealed_len;
	rec.used_len = used_len;
	rec.message_len = message_len;
	return load->each(&rec, load->ctx);
}

qg_err
qg_store_load_segments(qg_store *s, qg_err (*each)(const qg_segment_rec *rec, void *ctx), void *ctx)
{
	segment_load load = {each, ctx};
	return qg_sql_each(s, QG_SQL_SEGMENT_LOAD, NULL, 0, segment_row, &load);
}
