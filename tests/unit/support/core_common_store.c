/* SPDX-License-Identifier: Apache-2.0 */
#include "core_common.h"

/* The SQLite store with commits, and whatever else a test chooses by who asks, that
 * fail on demand. */

typedef bool refuses_caller(void *caller);
static _Atomic(refuses_caller *) store_refuses;

static bool caller_is_refused(refuses_caller *refuses, void *caller)
{
	return refuses != NULL && refuses(caller);
}

#define REFUSED caller_is_refused(atomic_load(&store_refuses), __builtin_return_address(0))

static fault_store *fault_of(qg_store *s)
{
	return (fault_store *)(void *)s;
}

static qg_store *inner(qg_store *s)
{
	return fault_of(s)->inner;
}

static qg_err f_begin(qg_store *s)
{
	pthread_mutex_lock(&fault_of(s)->gate);
	qg_err err = REFUSED ? QG_E_IO : inner(s)->ops->begin(inner(s));
	if (err != QG_OK)
		pthread_mutex_unlock(&fault_of(s)->gate);
	return err;
}

static qg_err f_commit(qg_store *s)
{
	fault_store *f = fault_of(s);
	int fault = REFUSED ? FAULT_FAILS : atomic_load(&f->fault);
	qg_err err = QG_OK;
	if (fault == FAULT_FAILS || fault == FAULT_UNKNOWN_UNDONE)
		inner(s)->ops->rollback(inner(s));
	else
		err = inner(s)->ops->commit(inner(s));
	if (fault == FAULT_FAILS)
		err = QG_E_IO;
	else if (fault != FAULT_NONE)
		err = QG_E_UNKNOWN;
	atomic_fetch_add(&f->commits, 1);
	pthread_mutex_unlock(&f->gate);
	return err;
}

static void f_rollback(qg_store *s)
{
	inner(s)->ops->rollback(inner(s));
	pthread_mutex_unlock(&fault_of(s)->gate);
}

#define PASS0(name) \
	static qg_err f_##name(qg_store *s, int64_t row) \
	{ return REFUSED ? QG_E_IO : inner(s)->ops->name(inner(s), row); }
#define PASS1(name, type) \
	static qg_err f_##name(qg_store *s, type a) \
	{ return REFUSED ? QG_E_IO : inner(s)->ops->name(inner(s), a); }
#define PASS_ROW(name, type) \
	static qg_err f_##name(qg_store *s, int64_t row, type a) \
	{ return REFUSED ? QG_E_IO : inner(s)->ops->name(inner(s), row, a); }
PASS1(epoch_put, qg_epoch_rec *)
PASS1(epoch_update, const qg_epoch_rec *)
PASS_ROW(epoch_mark, uint64_t)
PASS0(epoch_delete)
PASS1(segment_put, qg_segment_rec *)
PASS_ROW(segment_sent, uint64_t)
PASS0(segment_delete)
PASS1(transfer_put, qg_transfer_rec *)
PASS0(transfer_unseal)
PASS0(transfer_delete)
PASS1(app_stream_put, qg_app_stream_rec *)
PASS1(app_stream_update, const qg_app_stream_rec *)
PASS0(app_stream_delete)
PASS1(app_block_put, const qg_app_block_rec *)
PASS_ROW(app_block_delete, uint32_t)

static qg_err f_app_block_held(qg_store *s, int64_t row, uint32_t first, uint64_t since_ms)
{
	return REFUSED ? QG_E_IO : inner(s)->ops->app_block_held(inner(s), row, first, since_ms);
}
PASS_ROW(transfer_owe, const char *)
PASS1(telling_put, qg_telling_rec *)
PASS0(telling_delete)

static qg_err f_segment_confirm(qg_store *s, int64_t row, int64_t ready_wall_ms, uint32_t hops)
{
	return REFUSED ? QG_E_IO : inner(s)->ops->segment_confirm(inner(s), row, ready_wall_ms, hops);
}

static qg_err f_segment_use(qg_store *s, int64_t row, const uint8_t *was, const uint8_t *now, size_t len)
{
	return REFUSED ? QG_E_IO : inner(s)->ops->segment_use(inner(s), row, was, now, len);
}

static qg_err f_segment_used(qg_store *s, int64_t row, uint8_t *out, size_t len)
{
	return REFUSED ? QG_E_IO : inner(s)->ops->segment_used(inner(s), row, out, len);
}

static qg_err f_segment_reseal(qg_store *s, int64_t row, const uint8_t *sealed, size_t len)
{
	atomic_fetch_add(&fault_of(s)->reseals, 1);
	return REFUSED ? QG_E_IO : inner(s)->ops->segment_reseal(inner(s), row, sealed, len);
}

static qg_err f_transfer_state(qg_store *s, int64_t row, qg_transfer_state was, qg_transfer_state now)
{
	return REFUSED ? QG_E_IO : inner(s)->ops->transfer_state(inner(s), row, was, now);
}

static qg_err f_target_state(qg_store *s, int64_t row, const char *sae, qg_target_state was, qg_target_state now)
{
	return REFUSED ? QG_E_IO : inner(s)->ops->target_state(inner(s), row, sae, was, now);
}

static qg_err f_number_put(qg_store *s, const char *name, int64_t value)
{
	return REFUSED ? QG_E_IO : inner(s)->ops->number_put(inner(s), name, value);
}

static qg_err f_number_get(qg_store *s, const char *name, int64_t *value)
{
	return REFUSED ? QG_E_IO : inner(s)->ops->number_get(inner(s), name, value);
}

static qg_err f_load_epochs(qg_store *s, qg_err (*each)(const qg_epoch_rec *, void *), void *ctx)
{
	return REFUSED ? QG_E_IO : inner(s)->ops->load_epochs(inner(s), each, ctx);
}

static qg_err f_load_segments(qg_store *s, qg_err (*each)(const qg_segment_rec *, void *), void *ctx)
{
	return REFUSED ? QG_E_IO : inner(s)->ops->load_segments(inner(s), each, ctx);
}

static qg_err f_load_app_streams(qg_store *s, qg_err (*each)(const qg_app_stream_rec *, void *), void *ctx)
{
	return REFUSED ? QG_E_IO : inner(s)->ops->load_app_streams(inner(s), each, ctx);
}

static qg_err f_load_app_blocks(qg_store *s, qg_err (*each)(const qg_app_block_rec *, void *), void *ctx)
{
	return REFUSED ? QG_E_IO : inner(s)->ops->load_app_blocks(inner(s), each, ctx);
}

static qg_err f_load_transfers(qg_store *s, qg_err (*each)(const qg_transfer_rec *, void *), void *ctx)
{
	return REFUSED ? QG_E_IO : inner(s)->ops->load_transfers(inner(s), each, ctx);
}

static qg_err f_load_tellings(qg_store *s, qg_err (*each)(const qg_telling_rec *, void *), void *ctx)
{
	return REFUSED ? QG_E_IO : inner(s)->ops->load_tellings(inner(s), each, ctx);
}

static qg_err f_account_add(qg_store *s, const qg_account_rec *rec)
{
	return REFUSED ? QG_E_IO : inner(s)->ops->account_add(inner(s), rec);
}

static qg_err f_window_put(qg_store *s, const qg_window_rec *rec)
{
	return REFUSED ? QG_E_IO : inner(s)->ops->window_put(inner(s), rec);
}

static qg_err f_windows_delete(qg_store *s, int64_t before_ms)
{
	return REFUSED ? QG_E_IO : inner(s)->ops->windows_delete(inner(s), before_ms);
}

static qg_err f_load_windows(qg_store *s, qg_err (*each)(const qg_window_rec *, void *), void *ctx)
{
	return REFUSED ? QG_E_IO : inner(s)->ops->load_windows(inner(s), each, ctx);
}

static const qg_store_ops fault_ops = {
	.begin = f_begin, .commit = f_commit, .rollback = f_rollback, .epoch_put = f_epoch_put,
	.epoch_update = f_epoch_update, .epoch_mark = f_epoch_mark, .epoch_delete = f_epoch_delete,
	.segment_put = f_segment_put, .segment_confirm = f_segment_confirm, .segment_sent = f_segment_sent,
	.segment_use = f_segment_use, .segment_used = f_segment_used, .segment_reseal = f_segment_reseal,
	.segment_delete = f_segment_delete, .transfer_put = f_transfer_put, .transfer_state = f_transfer_state,
	.target_state = f_target_state, .transfer_unseal = f_transfer_unseal, .transfer_delete = f_transfer_delete,
	.number_put = f_number_put, .number_get = f_number_get, .load_epochs = f_load_epochs,
	.load_segments = f_load_segments, .load_transfers = f_load_transfers, .app_stream_put = f_app_stream_put,
	.app_stream_update = f_app_stream_update, .app_stream_delete = f_app_stream_delete,
	.app_block_put = f_app_block_put, .app_block_held = f_app_block_held, .app_block_delete = f_app_block_delete,
	.load_app_streams = f_load_app_streams, .load_app_blocks = f_load_app_blocks,
	.transfer_owe = f_transfer_owe, .telling_put = f_telling_put, .telling_delete = f_telling_delete,
	.load_tellings = f_load_tellings, .account_add = f_account_add, .window_put = f_window_put,
	.windows_delete = f_windows_delete, .load_windows = f_load_windows,
};
#undef REFUSED
