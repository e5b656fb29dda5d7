/* SPDX-License-Identifier: Apache-2.0 */
/* Where the chunks of a virtual stream are drawn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "qkdgate/clock.h"
#include "qkdgate/log.h"
#include "qkdgate/secret.h"
#include "qkdgate/source.h"

#define WAIT_MS 20000
#define CHUNK 32
#define CHUNKS 200

/* --- a stream that wants chunks --------------------------------------------------- */

struct qg_intake {
	qg_config_stream cfg;
	pthread_mutex_t lock;
	qg_uuid asked, ksid;
	bool open, closing, stopping;
	uint32_t next, target;
	unsigned opened, failed, closed;
	uint32_t chunk_size;
	qg_err err;
	uint8_t chunk[CHUNKS][CHUNK];
};

static qg_intake in;
static qg_source *source;
static char dir[64], file[96];

const qg_config_stream *
qg_intake_config(const qg_intake *i)
{
	return &i->cfg;
}

void
qg_intake_next(qg_intake *i, qg_intake_order *o)
{
	pthread_mutex_lock(&i->lock);
	*o = (qg_intake_order){.what = QG_INTAKE_WAIT, .ksid = i->open ? i->ksid : i->asked, .index = i->next,
			       .count = i->target - i->next < 7 ? i->target - i->next : 7};
	if (i->closing)
		o->what = QG_INTAKE_CLOSE;
	else if (i->stopping)
		o->what = QG_INTAKE_STOP;
	else if (!i->open)
		o->what = QG_INTAKE_OPEN;
	else if (i->next < i->target)
		o->what = QG_INTAKE_GET;
	pthread_mutex_unlock(&i->lock);
	if (o->what == QG_INTAKE_WAIT)
		poll(NULL, 0, 2);
}

void
qg_intake_opened(qg_intake *i, const qg_uuid *ksid, uint32_t chunk_size)
{
	pthread_mutex_lock(&i->lock);
	i->open = true;
	i->opened++;
	i->ksid = *ksid;
	i->chunk_size = chunk_size;
	pthread_mutex_unlock(&i->lock);
}

void
qg_intake_open_failed(qg_intake *i, qg_err err, uint32_t status)
{
	(void)i, (void)err, (void)status;
	fail();
}

qg_err
qg_intake_chunk(qg_intake *i, const qg_uuid *ksid, uint32_t index, const uint8_t *key, size_t len)
{
	pthread_mutex_lock(&i->lock);
	bool fits = qg_uuid_equal(ksid, &i->ksid) && index == i->next && index < i->target && len == i->cfg.chunk_size;
	if (fits)
		memcpy(i->chunk[i->next++], key, len);
	pthread_mutex_unlock(&i->lock);
	return fits ? QG_OK : QG_E_PROTO;
}

void
qg_intake_get_failed(qg_intake *i, uint32_t index, qg_err err, uint32_t status)
{
	pthread_mutex_lock(&i->lock);
	if (index == i->next && status == 0) {
		i->failed++;
		i->err = err;
	}
	pthread_mutex_unlock(&i->lock);
}

void
qg_intake_closed(qg_intake *i, const qg_uuid *ksid, qg_err err)
{
	pthread_mutex_lock(&i->lock);
	if (err == QG_OK && qg_uuid_equal(ksid, &i->ksid))
		i->closed++;
	i->closing = false;
	pthread_mutex_unlock(&i->lock);
}

/* --- around a test ------------------------------------------------------------------ */

static unsigned
peek(const void *member)
{
	unsigned n;
	pthread_mutex_lock(&in.lock);
	memcpy(&n, member, sizeof n);
	pthread_mutex_unlock(&in.lock);
	return n;
}

static void
until(const void *member, unsigned n)
{
	uint64_t end_ms = qg_clock_elapsed_ms() + WAIT_MS;
	while (peek(member) < n) {
		assert_true(qg_clock_elapsed_ms() < end_ms);
		poll(NULL, 0, 2);
	}
}

static void
prepare(const char *random, uint32_t chunk_size, uint32_t target)
{
	memset(&in, 0, sizeof in);
	pthread_mutex_init(&in.lock, NULL);
	in.cfg = (qg_config_stream){.name = "a-over-c", .chunk_size = chunk_size, .relayed = true,
				    .relay = {.random = random, .paths = 1}};
	in.target = target;
}

static void
start(const char *random, uint32_t chunk_size, uint32_t target)
{
	prepare(random, chunk_size, target);
	assert_int_equal(qg_source_start(&in, &source), QG_OK);
}

static void
stop(void)
{
	pthread_mutex_lock(&in.lock);
	in.stopping = true;
	pthread_mutex_unlock(&in.lock);
	qg_source_stop(&source, WAIT_MS);
	assert_null(source);
	pthread_mutex_destroy(&in.lock);
}

static void
put_file(const uint8_t *bytes, size_t n)
{
	int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0 && write(fd, bytes, n) == (ssize_t)n && close(fd) == 0);
}

static off_t
file_size(void)
{
	struct stat is;
	assert_int_equal(stat(file, &is), 0);
	return is.st_size;
}

static int
teardown(void **state)
{
	(void)state;
	unlink(file);
	return 0;
}

/* --- from the kernel ------------------------------------------------------------------ */

static void
test_chunks_from_the_kernel(void **state)
{
	(void)state;
	static const uint8_t none[CHUNK];
	start(NULL, CHUNK, CHUNKS);
	until(&in.next, CHUNKS);
	assert_int_equal(in.chunk_size, CHUNK);
	assert_false(qg_uuid_is_null(&in.ksid));
	for (unsigned i = 0; i < CHUNKS; i++) {
		assert_memory_not_equal(in.chunk[i], none, CHUNK);
		for (unsigned j = 0; j < i; j++)
			assert_memory_not_equal(in.chunk[i], in.chunk[j], CHUNK);
	}
	stop();
	assert_int_equal(in.failed, 0);
}

static void
test_small_chunks(void **state)
{
	(void)state;
	start(NULL, 5, CHUNKS);
	until(&in.next, CHUNKS);
	stop();
	assert_int_equal(in.failed, 0);
}

static void
test_the_ksid_ordered_is_opened(void **state)
{
	(void)state;
	prepare(NULL, CHUNK, 0);
	memset(in.asked.b, 0x42, sizeof in.asked.b);
	assert_int_equal(qg_source_start(&in, &source), QG_OK);
	until(&in.opened, 1);
	assert_memory_equal(in.ksid.b, in.asked.b, sizeof in.ksid.b);
	pthread_mutex_lock(&in.lock);
	in.closing = true;
	pthread_mutex_unlock(&in.lock);
	until(&in.closed, 1);
	stop();
	assert_int_equal(in.opened, 1);
}

/* --- from a file or device --------------------------------------------------------------- */

static void
test_a_file_is_used_up(void **state)
{
	(void)state;
	static uint8_t bytes[64 * CHUNK], after[64 * CHUNK];
	qg_random(bytes, sizeof bytes);
	put_file(bytes, sizeof bytes);
	start(file, CHUNK, 14);
	until(&in.next, 14);
	stop();
	assert_int_equal(file_size(), sizeof bytes - 14 * CHUNK);
	int fd = open(file, O_RDONLY);
	assert_int_equal(read(fd, after, sizeof after), sizeof bytes - 14 * CHUNK);
	close(fd);
	/* Every chunk was in what was cut off; what is left is as it was. */
	assert_memory_equal(after, bytes, sizeof bytes - 14 * CHUNK);
	for (unsigned i = 0; i < 14; i++)
		assert_non_null(memmem(bytes + sizeof bytes - 14 * CHUNK, 14 * CHUNK, in.chunk[i], CHUNK));
	uint8_t first[14][CHUNK];
	memcpy(first, in.chunk, sizeof first);
	/* Nor does the next start read it again. */
	start(file, CHUNK, 14);
	until(&in.next, 14);
	stop();
	for (unsigned i = 0; i < 14; i++)
		assert_null(memmem(in.chunk, 14 * CHUNK, first[i], CHUNK));
}

static void
test_a_file_at_its_end_gives_nothing_more(void **state)
{
	(void)state;
	uint8_t bytes[10 * CHUNK];
	qg_random(bytes, sizeof bytes);
	put_file(bytes, sizeof bytes);
	start(file, CHUNK, CHUNKS);
	until(&in.failed, 2);
	assert_int_equal(in.err, QG_E_EMPTY);
	assert_true(peek(&in.next) <= 10);
	/* It goes on when there is more. */
	unsigned before = peek(&in.next);
	static uint8_t more[32 * CHUNK];
	qg_random(more, sizeof more);
	put_file(more, sizeof more);
	until(&in.next, before + 7);
	stop();
}

static void
test_a_missing_file_is_not_replaced_by_the_kernel(void **state)
{
	(void)state;
	start(file, CHUNK, CHUNKS);
	until(&in.failed, 2);
	assert_int_equal(in.err, QG_E_IO);
	assert_int_equal(peek(&in.next), 0);
	stop();
}

static void
test_a_folder_is_no_source(void **state)
{
	(void)state;
	start(dir, CHUNK, CHUNKS);
	until(&in.failed, 1);
	assert_int_equal(in.err, QG_E_UNSUPPORTED);
	assert_int_equal(peek(&in.next), 0);
	stop();
}

static void
test_zeroes_are_refused(void **state)
{
	(void)state;
	start("/dev/zero", CHUNK, CHUNKS);
	until(&in.failed, 2);
	assert_int_equal(in.err, QG_E_CORRUPT);
	assert_int_equal(peek(&in.next), 0);
	stop();
}

static void
test_a_source_that_repeats_is_refused(void **state)
{
	(void)state;
	uint8_t bytes[32][CHUNK];
	for (int i = 0; i < 32; i++)
		memset(bytes[i], 0x5a, CHUNK);
	put_file(bytes[0], sizeof bytes);
	start(file, CHUNK, CHUNKS);
	until(&in.failed, 2);
	assert_int_equal(in.err, QG_E_CORRUPT);
	assert_int_equal(peek(&in.next), 0);
	stop();
}

static void
test_a_device(void **state)
{
	(void)state;
	start("/dev/urandom", CHUNK, CHUNKS);
	until(&in.next, CHUNKS);
	stop();
	assert_int_equal(in.failed, 0);
}

/* A device that gives nothing now does not keep the gateway from stopping. */
static void
test_a_silent_device_does_not_hold_the_stop(void **state)
{
	(void)state;
	assert_int_equal(mkfifo(file, 0600), 0);
	int fd = open(file, O_RDWR | O_NONBLOCK);
	start(file, CHUNK, CHUNKS);
	uint8_t bytes[7 * CHUNK];
	qg_random(bytes, sizeof bytes);
	assert_int_equal(write(fd, bytes, 100), 100);
	poll(NULL, 0, 150);
	assert_int_equal(peek(&in.next), 0);
	assert_int_equal(write(fd, bytes + 100, sizeof bytes - 100), (int)sizeof bytes - 100);
	until(&in.next, 7);
	assert_memory_equal(in.chunk, bytes, sizeof bytes);
	uint64_t begin_ms = qg_clock_elapsed_ms();
	stop();
	assert_true(qg_clock_elapsed_ms() - begin_ms < 3000);
	close(fd);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_chunks_from_the_kernel, teardown),
		cmocka_unit_test_teardown(test_small_chunks, teardown),
		cmocka_unit_test_teardown(test_the_ksid_ordered_is_opened, teardown),
		cmocka_unit_test_teardown(test_a_file_is_used_up, teardown),
		cmocka_unit_test_teardown(test_a_file_at_its_end_gives_nothing_more, teardown),
		cmocka_unit_test_teardown(test_a_missing_file_is_not_replaced_by_the_kernel, teardown),
		cmocka_unit_test_teardown(test_a_folder_is_no_source, teardown),
		cmocka_unit_test_teardown(test_zeroes_are_refused, teardown),
		cmocka_unit_test_teardown(test_a_source_that_repeats_is_refused, teardown),
		cmocka_unit_test_teardown(test_a_device, teardown),
		cmocka_unit_test_teardown(test_a_silent_device_does_not_hold_the_stop, teardown),
	};
	qg_log_init(QG_LOG_ERROR, QG_LOG_TEXT);
	if (qg_secret_init() != QG_OK)
		return 1;
	snprintf(dir, sizeof dir, "/tmp/qkdgate-draw-XXXXXX");
	if (mkdtemp(dir) == NULL)
		return 1;
	snprintf(file, sizeof file, "%s/random", dir);
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	int rc = cmocka_run_group_tests(tests, NULL, NULL);
	rmdir(dir);
	return rc;
}
