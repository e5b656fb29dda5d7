/* SPDX-License-Identifier: Apache-2.0 */
/* Lines of an audit log that somebody else may have written: none verifies, but
 * those that the chain itself makes. */
#include "fuzz.h"

#include "../../src/platform/audit_internal.h"

static const uint8_t key[32] = {3};

static void
foreign(const char *line, size_t n)
{
	qg_audit_chain c;
	bool other = false;
	HOLDS(qg_audit_chain_init(&c, key) == QG_OK);
	HOLDS(!qg_audit_chain_check(&c, line, n));
	(void)qg_audit_chain_skip(&c, line, n, &other);
	qg_audit_chain_fini(&c);
}

static void
own(const uint8_t *data, size_t size)
{
	char line[QG_AUDIT_LINE_MAX];
	qg_audit_chain writer, reader;
	size_t third = size / 3 < QG_AUDIT_STRING_MAX ? size / 3 : QG_AUDIT_STRING_MAX;
	qg_audit_head head = {.time_ms = 1700000000000,
			      .caller = (const char *)data,
			      .peer = (const char *)data + third,
			      .reason = (const char *)data + 2 * third,
			      .size_bits = 256,
			      .caller_len = (uint16_t)third,
			      .peer_len = (uint16_t)third,
			      .reason_len = (uint16_t)third,
			      .act = QG_AUDIT_ISSUED};
	HOLDS(qg_audit_chain_init(&writer, key) == QG_OK && qg_audit_chain_init(&reader, key) == QG_OK);
	qg_audit_chain_event(&writer, &head);
	size_t n = qg_audit_chain_line(&writer, NULL, line);
	HOLDS(n > 1 && n <= sizeof line && line[n - 1] == '\n');
	line[n / 2] ^= 1;
	HOLDS(!qg_audit_chain_check(&reader, line, n - 1));
	line[n / 2] ^= 1;
	HOLDS(qg_audit_chain_check(&reader, line, n - 1));
	qg_audit_chain_fini(&writer);
	qg_audit_chain_fini(&reader);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *line = copy_of(data, size);
	foreign(line, size);
	free(line);
	own(data, size);
	return 0;
}
