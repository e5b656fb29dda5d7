/* SPDX-License-Identifier: Apache-2.0 */
/* The arguments of a query, after a table of those that are known. */
#include <assert.h>
#include <string.h>

#include "admin_internal.h"
#include "qkdgate/log.h"
#include "qkdgate/nearest.h"

#define KNOWN_MAX 8

static bool
take(qg_http_request *http, const qg_admin_argument *known, size_t n, void *into, const char *name,
     const char *value)
{
	const char *names[KNOWN_MAX];
	for (size_t i = 0; i < n; i++) {
		names[i] = known[i].name;
		if (strcmp(name, known[i].name) != 0)
			continue;
		if (known[i].set(into, value))
			return true;
		qg_admin_answer_error(http, QG_E_INVAL, "%s: %s", name, known[i].right);
		return false;
	}
	const char *near = qg_nearest(name, names, n);
	qg_admin_answer_error(http, QG_E_INVAL, "unknown argument %s%s%s%s", qg_log_safe(name),
			      near != NULL ? ": is " : "", near != NULL ? near : "", near != NULL ? " meant?" : "");
	return false;
}

bool
qg_admin_take_query(qg_http_request *http, const qg_admin_argument *known, size_t n, void *into)
{
	assert(n <= KNOWN_MAX);
	for (size_t i = 0; i < qg_http_query_count(http); i++) {
		const char *name, *value;
		qg_http_query_at(http, i, &name, &value);
		if (!take(http, known, n, into, name, value))
			return false;
	}
	return true;
}
