/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/error.h"

#include <stddef.h>

static const char *const texts[QG_E_COUNT] = {
	[QG_OK] = "ok",
	[QG_E_NOMEM] = "out of memory",
	[QG_E_INVAL] = "not allowed",
	[QG_E_RANGE] = "outside its limits",
	[QG_E_PARSE] = "malformed",
	[QG_E_IO] = "input or output failed",
	[QG_E_TIMEOUT] = "timed out",
	[QG_E_AGAIN] = "not now",
	[QG_E_NOTFOUND] = "not found",
	[QG_E_EXISTS] = "exists already",
	[QG_E_DENIED] = "denied",
	[QG_E_AUTH] = "not authentic",
	[QG_E_FULL] = "full",
	[QG_E_EMPTY] = "not enough key",
	[QG_E_STATE] = "wrong state",
	[QG_E_CLOSED] = "closed",
	[QG_E_PROTO] = "protocol broken by the peer",
	[QG_E_CORRUPT] = "stored data is damaged",
	[QG_E_UNSUPPORTED] = "not supported",
	[QG_E_CONSUMED] = "delivered before",
	[QG_E_EXPIRED] = "expired",
	[QG_E_MISMATCH] = "the two ends differ",
	[QG_E_LIMIT] = "limit reached",
	[QG_E_MODE] = "file owner or mode too loose",
	[QG_E_ROLLBACK] = "store is older than it should be",
	[QG_E_UNKNOWN] = "the outcome is unknown",
};

const char *
qg_err_text(qg_err err)
{
	if ((unsigned)err >= QG_E_COUNT || texts[err] == NULL)
		return "unknown error";
	return texts[err];
}
