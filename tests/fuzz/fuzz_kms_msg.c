/* SPDX-License-Identifier: Apache-2.0 */
/* Messages between neighbours: the first byte chooses the kind. What can be
 * read is written and read again as the same bytes. */
#include "fuzz.h"

#include "qkdgate/kms_msg.h"

typedef union message {
	qg_kms_new_app new_app;
	qg_kms_new_app_answer new_app_answer;
	qg_kms_batch batch;
	qg_kms_batch_answer batch_answer;
	qg_kms_closed closed;
	qg_kms_status status;
	qg_kms_forward forward;
	qg_kms_forward_answer forward_answer;
	qg_kms_make make;
	qg_kms_make_answer make_answer;
	qg_kms_delete delete;
	qg_kms_delete_answer delete_answer;
	qg_kms_report report;
} message;

#define KINDS(X)                                                                          \
	X(new_app) X(new_app_answer) X(batch) X(batch_answer) X(closed) X(status) X(forward) \
	X(forward_answer) X(make) X(make_answer) X(delete) X(delete_answer) X(report)

#define WRAP(kind)                                                                     \
	static qg_err decode_##kind(const char *json, size_t len, message *m)          \
	{                                                                              \
		return qg_kms_##kind##_decode(json, len, &m->kind);                    \
	}                                                                              \
	static qg_err encode_##kind(const message *m, char *out, size_t room, size_t *len) \
	{                                                                              \
		return qg_kms_##kind##_encode(&m->kind, out, room, len);               \
	}
KINDS(WRAP)

typedef struct kind_row {
	qg_err (*decode)(const char *json, size_t len, message *m);
	qg_err (*encode)(const message *m, char *out, size_t room, size_t *len);
} kind_row;

#define ROW(kind) {decode_##kind, encode_##kind},
static const kind_row rows[] = {KINDS(ROW)};

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static message m, again;
	static char first[QG_KMS_MSG_MAX], second[QG_KMS_MSG_MAX];
	size_t n = 0, n_second = 0;
	if (size == 0)
		return 0;
	const kind_row *row = &rows[data[0] % (sizeof rows / sizeof rows[0])];
	char *json = copy_of(data + 1, size - 1);
	if (row->decode(json, size - 1, &m) == QG_OK) {
		HOLDS(row->encode(&m, first, sizeof first, &n) == QG_OK);
		HOLDS(row->decode(first, n, &again) == QG_OK);
		HOLDS(row->encode(&again, second, sizeof second, &n_second) == QG_OK);
		HOLDS(n == n_second && memcmp(first, second, n) == 0);
	}
	free(json);
	return 0;
}
