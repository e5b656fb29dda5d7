/* SPDX-License-Identifier: Apache-2.0 */
/* Key IDs from outside: text, and what it decodes to. An ID made here opens to
 * its position for its pair alone; any other is unknown or denied. */
#include "fuzz.h"

#include "qkdgate/key_id.h"
#include "qkdgate/uuid.h"

static qg_key_id_keys *
keys(void)
{
	static qg_key_id_keys *k;
	static const uint8_t root[64] = {7};
	if (k == NULL) {
		qg_key_id_binding b = {.owner = "KME-A", .far_end = "KME-B", .epoch = {1}};
		HOLDS(qg_key_id_keys_new(root, sizeof root, &b, &k) == QG_OK);
	}
	return k;
}

static void
made(const uint8_t *data, size_t size)
{
	qg_key_id_position pos = {0}, got = {0};
	qg_key_id_pair pair, other;
	qg_uuid id;
	char *master = text_of(data + 6, size - 6);
	memcpy(&pos.index, data, 4);
	pos.size_bytes = (uint16_t)(1 + (data[4] << 8 | data[5]) % 4095);
	qg_key_id_pair_of(keys(), master, "sae-s", &pair);
	qg_key_id_pair_of(keys(), master, "sae-t", &other);
	qg_key_id_make(keys(), &pair, pos, &id);
	HOLDS(qg_key_id_open(keys(), &pair, &id, &got) == QG_OK);
	HOLDS(got.index == pos.index && got.size_bytes == pos.size_bytes);
	HOLDS(qg_key_id_open(keys(), &other, &id, &got) == QG_E_DENIED);
	free(master);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	qg_key_id_pair pair;
	qg_key_id_position pos;
	qg_uuid id;
	char *text = text_of(data, size);
	if (qg_uuid_parse(text, size, &id) == QG_OK) {
		char back[QG_UUID_TEXT];
		qg_uuid again;
		qg_uuid_format(&id, back);
		HOLDS(qg_uuid_parse(back, strlen(back), &again) == QG_OK && qg_uuid_equal(&id, &again));
		qg_key_id_pair_of(keys(), "sae-m", "sae-s", &pair);
		HOLDS(qg_key_id_open(keys(), &pair, &id, &pos) != QG_OK);
	}
	free(text);
	if (size >= 7)
		made(data, size);
	return 0;
}
