/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_BYTES_H
#define QKDGATE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bounded reading and writing of big-endian encodings. An access beyond the
 * end sets `bad`, reads zero or writes nothing, and leaves every later access
 * without effect: check `bad` once, at the end. No allocation, no locks. */

typedef struct qg_reader {
	const uint8_t *p;
	size_t left;
	bool bad;
} qg_reader;

typedef struct qg_writer {
	uint8_t *buf;
	size_t room;
	size_t len;
	bool bad;
} qg_writer;

qg_reader qg_reader_of(const void *p, size_t n);
uint8_t qg_get_u8(qg_reader *r);
uint16_t qg_get_u16(qg_reader *r);
uint32_t qg_get_u32(qg_reader *r);
uint64_t qg_get_u64(qg_reader *r);
/* n bytes as a view into the input, NULL when they are not there. */
const uint8_t *qg_get_bytes(qg_reader *r, size_t n);
/* A NUL-terminated string as a view, NULL when no NUL is left. */
const char *qg_get_cstr(qg_reader *r);

qg_writer qg_writer_of(void *p, size_t room);
void qg_put_u8(qg_writer *w, uint8_t v);
void qg_put_u16(qg_writer *w, uint16_t v);
void qg_put_u32(qg_writer *w, uint32_t v);
void qg_put_u64(qg_writer *w, uint64_t v);
void qg_put_bytes(qg_writer *w, const void *p, size_t n);
/* The string and its NUL. */
void qg_put_cstr(qg_writer *w, const char *s);
/* u16 length, then the bytes (at most 65,535, else bad). */
void qg_put_lstr(qg_writer *w, const char *s);

/* For hash tables that bound how many keys they hold, or whose keys no stranger
 * chooses (FNV-1a, folded): anybody can make two keys that clash. */
uint32_t qg_hash(const void *p, size_t n);

#endif
