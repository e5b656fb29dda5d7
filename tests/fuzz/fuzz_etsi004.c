/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of ETSI GS QKD 004 in every profile: the first byte chooses the
 * profile and the role. What can be read is written and read again as the same. */
#include "fuzz.h"

#include "qkdgate/etsi004.h"

#define ROOM (QG_ETSI004_FRAME_MAX + 1024)

static uint8_t first[ROOM], frame[ROOM], second[ROOM];

/* A server that does not know what its client speaks. */
static void
as_server(const qg_etsi004_profile *known, uint8_t *bytes, size_t n)
{
	const qg_etsi004_profile *p = known;
	qg_etsi004_request q, again;
	size_t used = 0;
	if (qg_etsi004_next_request(&p, bytes, n, &q, &used) != QG_OK)
		return;
	HOLDS(used > 0 && used <= n);
	HOLDS(q.metadata_len <= QG_ETSI004_METADATA_MAX && strlen(q.source) <= QG_ETSI004_URI_MAX);
	q.authority = "a:1";
	qg_writer w = qg_writer_of(first, ROOM), v = qg_writer_of(second, ROOM);
	if (p->put_request(p, &q, &w) != QG_OK)
		return; /* metadata that is no text of this profile */
	memcpy(frame, first, w.len); /* what was read points into it */
	HOLDS(p->get_request(p, frame, w.len, &again) == QG_OK);
	again.authority = "a:1";
	HOLDS(p->put_request(p, &again, &v) == QG_OK);
	HOLDS(v.len == w.len && memcmp(first, second, w.len) == 0);
}

static void
as_client(const qg_etsi004_profile *p, unsigned op, uint8_t *bytes, size_t n)
{
	const qg_etsi004_due due = {.op = (qg_etsi004_op)(op % 3), .chunk_size = 32};
	qg_etsi004_response a;
	size_t total = 0;
	qg_err err = p->frame(p, bytes, n, &total);
	if (err != QG_OK || total > n)
		return;
	HOLDS(total > 0);
	if (p->get_response(p, &due, bytes, total, &a) != QG_OK)
		return;
	HOLDS(a.key_len <= QG_ETSI004_KEY_MAX && a.metadata_len <= QG_ETSI004_METADATA_MAX);
	HOLDS(a.key_len == 0 || (a.key >= bytes && a.key + a.key_len <= bytes + total));
	qg_writer w = qg_writer_of(first, ROOM);
	(void)p->put_response(p, &a, &w);
}

/* The module's side of pushes, and ours. */
static void
as_pushed(const qg_etsi004_profile *p, uint8_t *bytes, size_t n)
{
	qg_etsi004_response a;
	uint32_t status = 0;
	unsigned http = 0;
	uint8_t *copy = (uint8_t *)copy_of(bytes, n);
	if (p->push->get(p, copy, n, &a) == QG_OK)
		HOLDS(!qg_uuid_is_null(&a.ksid) && a.key_len <= QG_ETSI004_KEY_MAX);
	free(copy);
	(void)p->push->get_answer(p, bytes, n, &status, &http);
}

/* A frame of profile bin names its length. */
void
fuzz_mend(uint8_t *data, size_t size)
{
	const qg_etsi004_profile *p = size > 8 ? qg_etsi004_profile_at(data[0] & 7) : NULL;
	if (p == NULL || strncmp(p->name, "bin", 3) != 0)
		return;
	qg_writer length = qg_writer_of(data + 5, 4);
	qg_put_u32(&length, (uint32_t)(size - 9));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	const qg_etsi004_profile *p = qg_etsi004_profile_at(data[0] & 7);
	uint8_t *bytes = (uint8_t *)copy_of(data + 1, size - 1);
	unsigned role = data[0] >> 3 & 3;
	if (role == 0 || p == NULL)
		as_server(p, bytes, size - 1);
	else if (role == 3 && p->push != NULL)
		as_pushed(p, bytes, size - 1);
	else
		as_client(p, data[0] >> 5, bytes, size - 1);
	free(bytes);
	return 0;
}
