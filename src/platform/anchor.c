/* SPDX-License-Identifier: Apache-2.0 */
/* The file has two slots at fixed places. A slot: magic, u64 sequence, u64
 * commits, u32 count, count times (16-byte epoch, u64 mark), 32-byte tag over
 * all before it and the slot's number. The file gets its full size when it is
 * made, so that a write changes no metadata and costs one small sync. */
#include "qkdgate/anchor.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "keyfile_internal.h"
#include "qkdgate/bytes.h"
#include "qkdgate/secret.h"

#define MAGIC 0x51474131u /* "QGA1" */
#define HEAD (4 + 8 + 8 + 4)
#define ENTRY (16 + 8)
#define TAG 32
#define SLOT_MAX (HEAD + QG_ANCHOR_EPOCHS * ENTRY + TAG)
#define SLOT_ROOM ((size_t)28672) /* whole pages: slots share none, so a torn write spoils one */
#define FILE_SIZE (2 * SLOT_ROOM)

_Static_assert(SLOT_MAX <= SLOT_ROOM, "a full slot fits its place");

struct qg_anchor {
	int fd;
	uint64_t sequence; /* of the newest slot that is durable */
	qg_secret *key;
	uint8_t buf[SLOT_ROOM];
};

static void
slot_tag(const qg_anchor *a, const uint8_t *p, size_t n, uint8_t slot, uint8_t out[TAG])
{
	crypto_generichash_state st;
	crypto_generichash_init(&st, a->key->data, a->key->len, TAG);
	crypto_generichash_update(&st, p, n);
	crypto_generichash_update(&st, &slot, 1);
	crypto_generichash_final(&st, out, TAG);
	qg_wipe(&st, sizeof st);
}

/* Whether the bytes are a valid slot; then its sequence, and its content in
 * *state. */
static bool
slot_decode(const qg_anchor *a, const uint8_t *p, size_t len, uint8_t slot, uint64_t *sequence,
	qg_anchor_state *state)
{
	uint8_t tag[TAG];
	qg_reader r = qg_reader_of(p, len);
	if (qg_get_u32(&r) != MAGIC)
		return false;
	uint64_t seq = qg_get_u64(&r), commits = qg_get_u64(&r);
	uint32_t n = qg_get_u32(&r);
	if (r.bad || n > QG_ANCHOR_EPOCHS || len < HEAD + (size_t)n * ENTRY + TAG)
		return false;
	size_t body = HEAD + (size_t)n * ENTRY;
	slot_tag(a, p, body, slot, tag);
	if (!qg_equal_ct(tag, p + body, TAG))
		return false;
	state->commits = commits;
	state->n = n;
	for (size_t i = 0; i < n; i++) {
		memcpy(state->entry[i].epoch, qg_get_bytes(&r, 16), 16);
		state->entry[i].mark = qg_get_u64(&r);
	}
	*sequence = seq;
	return true;
}

static size_t
slot_encode(qg_anchor *a, const qg_anchor_state *state, uint64_t sequence, uint8_t slot)
{
	qg_writer w = qg_writer_of(a->buf, sizeof a->buf);
	qg_put_u32(&w, MAGIC);
	qg_put_u64(&w, sequence);
	qg_put_u64(&w, state->commits);
	qg_put_u32(&w, (uint32_t)state->n);
	for (size_t i = 0; i < state->n; i++) {
		qg_put_bytes(&w, state->entry[i].epoch, 16);
		qg_put_u64(&w, state->entry[i].mark);
	}
	slot_tag(a, a->buf, w.len, slot, a->buf + w.len);
	return w.len + TAG;
}

/* One that was made and never written holds only zeroes; so does one whose
 * making a crash cut short. */
static bool
all_zero(const uint8_t *p, size_t n)
{
	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

static qg_err
anchor_load(qg_anchor *a, bool *found, qg_anchor_state *state)
{
	size_t len;
	uint64_t best = 0;
	uint8_t *file = calloc(1, FILE_SIZE);
	qg_anchor_state *slot_state = calloc(1, sizeof *slot_state);
	qg_err err = file != NULL && slot_state != NULL ? QG_OK : QG_E_NOMEM;
	if (err == QG_OK)
		err = qg_keyfile_read(a->fd, file, FILE_SIZE, &len);
	if (err != QG_OK)
		goto out;
	for (uint8_t slot = 0; slot < 2; slot++) {
		uint64_t sequence;
		const uint8_t *p = file + slot * SLOT_ROOM;
		if (!slot_decode(a, p, SLOT_ROOM, slot, &sequence, slot_state) || sequence <= best)
			continue;
		best = sequence;
		*state = *slot_state;
	}
	if (best == 0 && !all_zero(file, len))
		err = QG_E_CORRUPT;
	if (err == QG_OK) {
		a->sequence = best;
		*found = best > 0;
	}
	/* Also one cut short gets its full size again, beyond what is valid. */
	if (err == QG_OK && len < FILE_SIZE
		&& (qg_keyfile_write_at(a->fd, file + len, FILE_SIZE - len, (off_t)len) != QG_OK
			|| fsync(a->fd) != 0))
		err = QG_E_IO;
out:
	free(slot_state);
	free(file);
	return err;
}

static qg_err
open_or_create(const char *path, int *fd)
{
	qg_err err = qg_keyfile_open(path, O_RDWR, 0177, fd);
	if (err != QG_E_NOTFOUND)
		return err;
	if (qg_keyfile_create(path, fd) != QG_OK)
		return QG_E_IO;
	return qg_keyfile_sync_folder(path);
}

qg_err
qg_anchor_open(const char *path, const uint8_t key[32], bool *found, qg_anchor_state *state, qg_anchor **out)
{
	bool was = false;
	qg_anchor_state *read = calloc(1, sizeof *read);
	qg_anchor *a = calloc(1, sizeof *a);
	qg_err err = read != NULL && a != NULL ? QG_OK : QG_E_NOMEM;
	if (a != NULL)
		a->fd = -1;
	if (err == QG_OK)
		err = qg_secret_new(32, &a->key);
	if (err == QG_OK)
		err = qg_secret_append(a->key, key, 32);
	if (err == QG_OK)
		err = open_or_create(path, &a->fd);
	if (err == QG_OK)
		err = anchor_load(a, &was, read);
	if (err == QG_OK) {
		*found = was;
		if (was)
			*state = *read;
		*out = a;
		a = NULL;
	}
	free(read);
	qg_anchor_close(&a);
	return err;
}

/* A write that failed may have spoilt its slot: the next takes the same one
 * again, the other still holds the last state that is durable. */
qg_err
qg_anchor_write(qg_anchor *a, const qg_anchor_state *state)
{
	if (state->n > QG_ANCHOR_EPOCHS)
		return QG_E_RANGE;
	uint64_t sequence = a->sequence + 1;
	uint8_t slot = sequence & 1;
	size_t n = slot_encode(a, state, sequence, slot);
	if (qg_keyfile_write_at(a->fd, a->buf, n, (off_t)(slot * SLOT_ROOM)) != QG_OK || fdatasync(a->fd) != 0)
		return QG_E_IO;
	a->sequence = sequence;
	return QG_OK;
}

void
qg_anchor_close(qg_anchor **a)
{
	if (a == NULL || *a == NULL)
		return;
	qg_keyfile_close(&(*a)->fd);
	qg_secret_free(&(*a)->key);
	free(*a);
	*a = NULL;
}
