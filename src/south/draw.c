/* SPDX-License-Identifier: Apache-2.0 */
/* Chunks of a virtual stream (DESIGN, idea 4): drawn here, at its owner, from
 * the kernel or from the file or device that is configured. At the far end,
 * where the chunks come by relay, there is only opening and closing. */
#include "south_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "qkdgate/clock.h"
#include "qkdgate/log.h"

#define NAP_MS 1000
#define BLOCK_MIN 32     /* bytes that never come twice in a row from a sound source */
#define READ_MAX 4096    /* bytes drawn at once, but at least a block */
#define READ_MS 5000     /* for as many bytes */
#define POLL_MS 100

struct qg_draw {
	int fd;            /* of relay.random, -1: not open */
	bool regular;      /* it is a file, not a device */
	size_t block;      /* bytes: whole chunks */
	qg_secret *last;   /* the block before */
	qg_secret *drawn;
};

qg_err
qg_draw_new(qg_source *s)
{
	struct qg_draw *d = calloc(1, sizeof *d);
	size_t cs = s->chunk_size;
	if (d == NULL)
		return QG_E_NOMEM;
	s->draw = d;
	d->fd = -1;
	d->block = (BLOCK_MIN + cs - 1) / cs * cs;
	size_t room = d->block > READ_MAX ? d->block : READ_MAX;
	qg_err err = qg_secret_new(d->block, &d->last);
	if (err == QG_OK)
		err = qg_secret_new(room, &d->drawn);
	return err;
}

static void
device_close(struct qg_draw *d)
{
	if (d->fd >= 0)
		close(d->fd);
	d->fd = -1;
}

void
qg_draw_free(qg_source *s)
{
	if (s->draw == NULL)
		return;
	device_close(s->draw);
	qg_secret_free(&s->draw->last);
	qg_secret_free(&s->draw->drawn);
	free(s->draw);
	s->draw = NULL;
}

/* --- the file or device --------------------------------------------------------- */

/* A block device would begin anew with every start. */
static qg_err
device_open(qg_source *s)
{
	struct qg_draw *d = s->draw;
	const char *name = s->cfg->relay.random;
	struct stat is;
	if (d->fd >= 0)
		return QG_OK;
	if (stat(name, &is) != 0)
		return QG_E_IO;
	if (!S_ISREG(is.st_mode) && !S_ISCHR(is.st_mode) && !S_ISFIFO(is.st_mode))
		return QG_E_UNSUPPORTED;
	d->regular = S_ISREG(is.st_mode);
	d->fd = open(name, (d->regular ? O_RDWR : O_RDONLY) | O_NONBLOCK | O_CLOEXEC);
	return d->fd >= 0 ? QG_OK : QG_E_IO;
}

/* A file is used up from its end: what was read is overwritten and cut off
 * before it is used, so that no start reads it again. */
static qg_err
cut_off(int fd, uint8_t *out, size_t n)
{
	static const uint8_t zeroes[READ_MAX];
	struct stat is;
	if (fstat(fd, &is) != 0)
		return QG_E_IO;
	if (is.st_size < (off_t)n)
		return QG_E_EMPTY;
	off_t at = is.st_size - (off_t)n;
	if (pread(fd, out, n, at) != (ssize_t)n)
		return QG_E_IO;
	for (size_t done = 0; done < n;) {
		size_t part = n - done < sizeof zeroes ? n - done : sizeof zeroes;
		if (pwrite(fd, zeroes, part, at + (off_t)done) != (ssize_t)part)
			return QG_E_IO;
		done += part;
	}
	if (fdatasync(fd) != 0 || ftruncate(fd, at) != 0 || fsync(fd) != 0)
		return QG_E_IO;
	return QG_OK;
}

static qg_err
device_read(qg_source *s, uint8_t *out, size_t n)
{
	int fd = s->draw->fd;
	uint64_t end_ms = qg_clock_elapsed_ms() + READ_MS;
	for (size_t got = 0; got < n;) {
		ssize_t r = read(fd, out + got, n - got);
		if (r > 0) {
			got += (size_t)r;
			continue;
		}
		if (r == 0)
			return QG_E_EMPTY;
		if (errno != EAGAIN && errno != EINTR)
			return QG_E_IO;
		if (qg_session_stopping(s))
			return QG_E_CLOSED;
		if (qg_clock_elapsed_ms() >= end_ms)
			return QG_E_TIMEOUT;
		struct pollfd p = {.fd = fd, .events = POLLIN};
		(void)poll(&p, 1, POLL_MS); /* the read tells */
	}
	return QG_OK;
}

/* --- drawing ----------------------------------------------------------------------- */

/* A source that stands still gives the same again, or nothing but zeroes. */
static qg_err
check_blocks(struct qg_draw *d, size_t n)
{
	static const uint8_t zeroes[64];
	for (size_t at = 0; at < n; at += d->block) {
		const uint8_t *block = d->drawn->data + at;
		bool zero = true;
		for (size_t i = 0; zero && i < d->block; i += sizeof zeroes) {
			size_t part = d->block - i < sizeof zeroes ? d->block - i : sizeof zeroes;
			zero = qg_equal_ct(block + i, zeroes, part);
		}
		bool same = d->last->len == d->block && qg_equal_ct(block, d->last->data, d->block);
		memcpy(d->last->data, block, d->block);
		d->last->len = d->block;
		if (zero || same)
			return QG_E_CORRUPT;
	}
	return QG_OK;
}

/* Fills `drawn` with n bytes, whole blocks. Never from the kernel where another
 * source is configured. */
static qg_err
draw(qg_source *s, size_t n)
{
	struct qg_draw *d = s->draw;
	qg_err err = QG_OK;
	if (s->cfg->relay.random == NULL) {
		qg_random(d->drawn->data, n);
	} else {
		err = device_open(s);
		if (err == QG_OK)
			err = d->regular ? cut_off(d->fd, d->drawn->data, n)
					 : device_read(s, d->drawn->data, n);
		if (err != QG_OK)
			device_close(d);
	}
	return err == QG_OK ? check_blocks(d, n) : err;
}

static uint32_t
least(size_t a, size_t b)
{
	return (uint32_t)(a < b ? a : b);
}

void
qg_draw_get(qg_source *s, const qg_intake_order *o)
{
	struct qg_draw *d = s->draw;
	size_t cs = s->chunk_size, per_block = d->block / cs;
	if (!qg_order_may(s, NAP_MS))
		return;
	qg_err err = QG_OK;
	for (uint32_t i = 0; err == QG_OK && i < o->count && !qg_session_stopping(s);) {
		size_t want = (o->count - i + per_block - 1) / per_block, most = d->drawn->room / d->block;
		uint32_t blocks = least(want, most);
		err = draw(s, blocks * d->block);
		if (err != QG_OK) {
			if (err == QG_E_CORRUPT)
				err = qg_order_failed(s, "random_repeats", err, 0);
			else
				err = qg_order_failed(s, "random_failed", err, 0);
			qg_intake_get_failed(s->in, o->index + i, err, 0);
			break;
		}
		qg_order_worked(s);
		uint32_t n = least(blocks * per_block, o->count - i);
		for (uint32_t j = 0; err == QG_OK && j < n; j++, i++)
			err = qg_intake_chunk(s->in, &o->ksid, o->index + i, d->drawn->data + j * cs, cs);
	}
	qg_wipe(d->drawn->data, d->drawn->room);
}

/* --- opening and closing -------------------------------------------------------------- */

void
qg_draw_open(qg_source *s, const qg_intake_order *o)
{
	qg_uuid ksid = o->ksid;
	if (qg_uuid_is_null(&ksid))
		qg_uuid_random(&ksid);
	qg_intake_opened(s->in, &ksid, s->chunk_size);
}

void
qg_draw_close(qg_source *s, const qg_intake_order *o)
{
	qg_intake_closed(s->in, &o->ksid, QG_OK);
}

void
qg_draw_end(qg_source *s)
{
	device_close(s->draw);
	qg_wipe(s->draw->last->data, s->draw->last->room);
}
