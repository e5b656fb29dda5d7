/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_ETSI004_MEMBERS_INTERNAL_H
#define QKDGATE_ETSI004_MEMBERS_INTERNAL_H

#include "json_text_internal.h"
#include "qkdgate/etsi004.h"

/* The members that the JSON of ETSI GS QKD 004 has in every profile that is
 * made of it. */

typedef enum qg_members_bit {
	QG_MEMBER_STATUS,
	QG_MEMBER_KSID,
	QG_MEMBER_SOURCE,
	QG_MEMBER_DESTINATION,
	QG_MEMBER_QOS,
	QG_MEMBER_INDEX,
	QG_MEMBER_KEY,
	QG_MEMBER_METADATA,
	QG_MEMBER_COMMAND, /* from here on: the outer object only */
	QG_MEMBER_DATA
} qg_members_bit;

/* What an object says. Strings are views into its text. */
typedef struct qg_members {
	uint32_t seen;     /* 1 << qg_members_bit; those that are null are not there */
	uint32_t nulls;
	qg_err err;        /* QG_E_RANGE: a member beyond its limit */
	const char *command;
	uint32_t status;
	qg_uuid ksid;
	const char *source, *destination;
	qg_etsi004_qos qos;
	uint32_t index;
	const uint8_t *key; /* bytes, or the text of a string */
	size_t key_len;
	bool key_text;
	uint32_t metadata_size;
	const uint8_t *metadata; /* a string; NULL: none or of another kind */
	size_t metadata_len;
	qg_uuid metadata_ksid;   /* in an object, or null */
} qg_members;

#define QG_HAS(m, bit) (((m)->seen >> (bit) & 1) != 0)

/* Reads one object of n bytes; wrapped: also command and data, whose members
 * count as the outer ones. QG_E_PARSE, QG_E_RANGE. */
qg_err qg_members_get(uint8_t *text, size_t n, bool wrapped, qg_members *m) QG_CHECKED;

/* The request of the kind `op` that they are. QG_E_PARSE when a member is missing. */
qg_err qg_members_request(const qg_members *m, qg_etsi004_op op, qg_etsi004_request *q) QG_CHECKED;

/* The answer. status is of table 2 already. Writes over key text. */
qg_err qg_members_response(qg_members *m, const qg_etsi004_due *due, uint32_t status,
			   qg_etsi004_response *a) QG_CHECKED;

/* --- writing: all set w->bad when a member cannot be ------------------------- */

/* Objects of the requests, and what members of answers follow the status. */
void qg_members_put_request(qg_writer *w, const qg_etsi004_request *q, bool key_type);
void qg_members_put_uuid(qg_writer *w, const qg_uuid *u);
void qg_members_put_open(qg_writer *w, const qg_etsi004_response *a, bool key_type);
void qg_members_put_metadata(qg_writer *w, size_t size, const uint8_t *text, size_t n);

/* Whether a request or answer is within the limits of etsi004.h. */
bool qg_members_fit_request(const qg_etsi004_request *q);
bool qg_members_fit_response(const qg_etsi004_response *a);

#endif
