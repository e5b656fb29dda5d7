/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/request_id.h"

#include <stdint.h>
#include <string.h>

#include "qkdgate/secret.h"

static _Thread_local const qg_request_id *current;

static bool
is_good(const char *text)
{
	static const char good[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
	const size_t n = strspn(text, good);
	return n > 0 && n <= QG_REQUEST_ID_MAX && text[n] == '\0';
}

void
qg_request_id_take(qg_request_id *out, const char *value)
{
	if (value == NULL || !is_good(value)) {
		qg_request_id_make(out);
		return;
	}
	out->given = true;
	memcpy(out->text, value, strlen(value) + 1);
}

/* Chance for each thread, and then a count: it costs a request nearly nothing. */
void
qg_request_id_make(qg_request_id *out)
{
	static const char digits[] = "0123456789abcdef";
	static _Thread_local uint64_t part[2]; /* of the thread, and how many it made */
	if (part[0] == 0)
		qg_random(part, sizeof part);
	part[1]++;
	out->given = false;
	for (unsigned i = 0; i < 32; i++)
		out->text[i] = digits[part[i / 16] >> (60 - 4 * (i % 16)) & 15];
	out->text[32] = '\0';
}

const qg_request_id *
qg_request_id_enter(const qg_request_id *id)
{
	const qg_request_id *before = current;
	current = id;
	return before;
}

qg_request_id
qg_request_id_now(void)
{
	return current != NULL ? *current : (qg_request_id){.given = false};
}

qg_request_id
qg_request_id_now_or_new(void)
{
	qg_request_id id = qg_request_id_now();
	if (id.text[0] == '\0')
		qg_request_id_make(&id);
	return id;
}
