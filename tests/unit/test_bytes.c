/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <string.h>

static void
numbers_are_big_endian(void **state)
{
	(void)state;
	uint8_t buf[15];
	static const uint8_t want[15] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
	qg_writer w = qg_writer_of(buf, sizeof buf);
	qg_put_u8(&w, 0x01);
	qg_put_u16(&w, 0x0203);
	qg_put_u32(&w, 0x04050607);
	qg_put_u64(&w, 0x08090a0b0c0d0e0f);
	assert_false(w.bad);
	assert_int_equal(w.len, 15);
	assert_memory_equal(buf, want, 15);

	qg_reader r = qg_reader_of(buf, w.len);
	assert_int_equal(qg_get_u8(&r), 0x01);
	assert_int_equal(qg_get_u16(&r), 0x0203);
	assert_int_equal(qg_get_u32(&r), 0x04050607);
	assert_true(qg_get_u64(&r) == 0x08090a0b0c0d0e0f);
	assert_false(r.bad);
	assert_int_equal(r.left, 0);
}

static void
largest_numbers_survive(void **state)
{
	(void)state;
	uint8_t buf[15];
	qg_writer w = qg_writer_of(buf, sizeof buf);
	qg_put_u8(&w, UINT8_MAX);
	qg_put_u16(&w, UINT16_MAX);
	qg_put_u32(&w, UINT32_MAX);
	qg_put_u64(&w, UINT64_MAX);
	qg_reader r = qg_reader_of(buf, w.len);
	assert_int_equal(qg_get_u8(&r), UINT8_MAX);
	assert_int_equal(qg_get_u16(&r), UINT16_MAX);
	assert_int_equal(qg_get_u32(&r), UINT32_MAX);
	assert_true(qg_get_u64(&r) == UINT64_MAX);
}

/* At every length short of what is needed: bad, zero, and it stays so. */
static void
truncated_input_reads_zero(void **state)
{
	(void)state;
	uint8_t buf[8];
	memset(buf, 0xff, sizeof buf);
	for (size_t n = 0; n < 8; n++) {
		qg_reader r = qg_reader_of(buf, n);
		assert_true(qg_get_u64(&r) == 0);
		assert_true(r.bad);
		assert_int_equal(qg_get_u8(&r), 0); /* though a byte is there */
		assert_null(qg_get_bytes(&r, 0));
		assert_true(r.bad);
	}
	qg_reader r = qg_reader_of(NULL, 0);
	assert_false(r.bad);
	assert_int_equal(qg_get_u16(&r), 0);
	assert_true(r.bad);
}

static void
bytes_are_views(void **state)
{
	(void)state;
	static const uint8_t in[] = {1, 2, 3};
	qg_reader r = qg_reader_of(in, sizeof in);
	assert_ptr_equal(qg_get_bytes(&r, 2), in);
	assert_non_null(qg_get_bytes(&r, 0));
	assert_null(qg_get_bytes(&r, 2));
	assert_true(r.bad);
	r = qg_reader_of(in, sizeof in);
	assert_null(qg_get_bytes(&r, SIZE_MAX));
	assert_true(r.bad);
	r = qg_reader_of(in, sizeof in);
	assert_ptr_equal(qg_get_bytes(&r, 3), in);
	assert_non_null(qg_get_bytes(&r, 0)); /* nothing of nothing is there */
	assert_false(r.bad);
}

static void
cstr_needs_its_nul(void **state)
{
	(void)state;
	static const char in[] = {'a', 'b', 0, 0, 'c', 'd'};
	qg_reader r = qg_reader_of(in, sizeof in);
	assert_string_equal(qg_get_cstr(&r), "ab");
	assert_string_equal(qg_get_cstr(&r), "");
	assert_null(qg_get_cstr(&r));
	assert_true(r.bad);
	r = qg_reader_of(in, sizeof in);
	(void)qg_get_bytes(&r, SIZE_MAX);
	assert_null(qg_get_cstr(&r)); /* not after bad */
	r = qg_reader_of(NULL, 0);
	assert_null(qg_get_cstr(&r));
}

/* One byte of room too few for each kind: bad, and nothing is written. */
static void
full_output_is_left_alone(void **state)
{
	(void)state;
	for (int kind = 0; kind < 7; kind++) {
		static const size_t need[] = {1, 2, 4, 8, 3, 3, 4};
		for (size_t room = 0; room <= need[kind]; room++) {
			uint8_t buf[9];
			memset(buf, 0xee, sizeof buf);
			qg_writer w = qg_writer_of(buf, room);
			switch (kind) {
			case 0: qg_put_u8(&w, 1); break;
			case 1: qg_put_u16(&w, 1); break;
			case 2: qg_put_u32(&w, 1); break;
			case 3: qg_put_u64(&w, 1); break;
			case 4: qg_put_bytes(&w, "abc", 3); break;
			case 5: qg_put_cstr(&w, "ab"); break;
			default: qg_put_lstr(&w, "ab"); break;
			}
			bool fits = room == need[kind];
			assert_int_equal(w.bad, !fits);
			assert_int_equal(w.len, fits ? room : 0);
			for (size_t i = fits ? room : 0; i < sizeof buf; i++)
				assert_int_equal(buf[i], 0xee);
			if (!fits) {
				qg_put_bytes(&w, "", 0);
				w.room = sizeof buf;
				qg_put_u8(&w, 1); /* no effect after bad */
				assert_int_equal(w.len, 0);
				assert_true(w.bad);
			}
		}
	}
}

static void
strings_have_their_form(void **state)
{
	(void)state;
	uint8_t buf[16];
	qg_writer w = qg_writer_of(buf, sizeof buf);
	qg_put_cstr(&w, "ab");
	qg_put_lstr(&w, "cde");
	qg_put_lstr(&w, "");
	assert_false(w.bad);
	assert_int_equal(w.len, 10);
	assert_memory_equal(buf, "ab\0\0\3cde\0\0", 10);
}

static void
long_string_does_not_wrap(void **state)
{
	(void)state;
	static char text[65537];
	static uint8_t buf[70000];
	memset(text, 'x', 65536);
	qg_writer w = qg_writer_of(buf, sizeof buf);
	qg_put_lstr(&w, text);
	assert_true(w.bad);
	assert_int_equal(w.len, 0);
	text[65535] = '\0';
	w = qg_writer_of(buf, sizeof buf);
	qg_put_lstr(&w, text);
	assert_false(w.bad);
	assert_int_equal(w.len, 65537);
	assert_memory_equal(buf, "\xff\xffx", 3);
}

/* The reference values of 32-bit FNV-1a, folded. */
static void
hash_is_fnv_1a_folded(void **state)
{
	(void)state;
	assert_int_equal(qg_hash("", 0), 0x811c9dc5u ^ 0x811cu);
	assert_int_equal(qg_hash("a", 1), 0xe40c292cu ^ 0xe40cu);
	assert_int_equal(qg_hash("foobar", 6), 0xbf9cf968u ^ 0xbf9cu);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_are_big_endian),
		cmocka_unit_test(largest_numbers_survive),
		cmocka_unit_test(truncated_input_reads_zero),
		cmocka_unit_test(bytes_are_views),
		cmocka_unit_test(cstr_needs_its_nul),
		cmocka_unit_test(full_output_is_left_alone),
		cmocka_unit_test(strings_have_their_form),
		cmocka_unit_test(long_string_does_not_wrap),
		cmocka_unit_test(hash_is_fnv_1a_folded),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests_name("bytes", tests, NULL, NULL);
}
