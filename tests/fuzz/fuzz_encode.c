/* SPDX-License-Identifier: Apache-2.0 */
/* Base64, hexadecimal and JSON objects from outside: what is read and written
 * again is the same. */
#include "fuzz.h"

#include "qkdgate/encode.h"
#include "qkdgate/json.h"

static void
base64(const char *text, size_t n)
{
	size_t room = n / 4 * 3 + 3, len = 0;
	uint8_t *out = malloc(room);
	char *back = malloc(QG_BASE64_LEN(room) + 1);
	HOLDS(out != NULL && back != NULL);
	if (qg_base64_decode(text, n, out, room, &len) == QG_OK) {
		qg_base64_encode(out, len, back);
		HOLDS(QG_BASE64_LEN(len) == n && memcmp(back, text, n) == 0);
		HOLDS(len == 0 || qg_base64_decode(text, n, out, len - 1, &len) == QG_E_RANGE);
	}
	free(out);
	free(back);
}

static void
hex(const char *text, size_t n)
{
	uint8_t *out = malloc(n / 2 + 1);
	char *back = malloc(n + 1);
	HOLDS(out != NULL && back != NULL);
	if (qg_hex_decode(text, n, out, n / 2) == QG_OK) {
		HOLDS(n % 2 == 0);
		qg_hex_encode(out, n / 2, back);
		for (size_t i = 0; i < n; i++)
			HOLDS(back[i] == (text[i] >= 'A' && text[i] <= 'F' ? text[i] + 32 : text[i]));
	}
	free(out);
	free(back);
}

static void
json(const char *text, size_t n)
{
	struct json_t *j = NULL;
	qg_json_error why = {.what = NULL};
	qg_err err = qg_json_parse_object(text, n, &j, &why);
	HOLDS((err == QG_OK) == (j != NULL));
	if (err == QG_E_PARSE)
		HOLDS(why.what != NULL && strnlen(why.member, sizeof why.member) < sizeof why.member);
	qg_json_free(&j);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = copy_of(data, size);
	base64(text, size);
	hex(text, size);
	json(text, size);
	free(text);
	return 0;
}
