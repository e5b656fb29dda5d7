/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/etsi004.h"

#include <string.h>

#define TABLE(id, table, name) &table,
static const qg_etsi004_profile *const profiles[] = {QG_ETSI004_PROFILES(TABLE)};
#undef TABLE
#define COUNT (sizeof profiles / sizeof profiles[0])

const qg_etsi004_profile *
qg_etsi004_profile_at(size_t n)
{
	return n < COUNT ? profiles[n] : NULL;
}

const qg_etsi004_profile *
qg_etsi004_profile_named(const char *name)
{
	for (size_t i = 0; i < COUNT; i++)
		if (strcmp(profiles[i]->name, name) == 0)
			return profiles[i];
	return NULL;
}

/* The first profile of the family that such a connection speaks, or NULL. */
static const qg_etsi004_profile *
by_first_byte(uint8_t first)
{
	for (size_t i = 0; i < COUNT; i++)
		if (profiles[i]->family->begins(first))
			return profiles[i];
	return NULL;
}

qg_err
qg_etsi004_next_request(const qg_etsi004_profile **p, uint8_t *bytes, size_t n, qg_etsi004_request *q,
			size_t *used)
{
	bool known = *p != NULL;
	size_t total = 0;
	if (n == 0)
		return QG_E_AGAIN;
	const qg_etsi004_profile *is = known ? *p : by_first_byte(bytes[0]);
	if (is == NULL)
		return QG_E_PARSE;
	qg_err err = is->frame(is, bytes, n, &total);
	if ((err == QG_OK && total > is->request_max) || (err == QG_E_AGAIN && n >= is->request_max))
		err = QG_E_RANGE;
	if (err == QG_E_AGAIN || (err == QG_OK && total > n))
		return QG_E_AGAIN;
	/* What none of them can be is answered as the first would, or as it says. */
	if (!known) {
		const qg_err told = is->family->detect(bytes, err == QG_OK ? total : n, &is);
		err = err == QG_OK ? told : err;
	}
	*p = is;
	if (err == QG_OK)
		err = is->get_request(is, bytes, total, q);
	if (err == QG_OK)
		*used = total;
	return err;
}

qg_err
qg_etsi004_put_error(const qg_etsi004_profile *p, qg_writer *w)
{
	const qg_etsi004_response a = {.op = QG_ETSI004_ERROR, .status = QG_ETSI004_NO_CONNECTION,
				       .qos.mimetype = "", .last = true};
	return p->put_response(p, &a, w);
}

uint32_t
qg_etsi004_status_to_wire(const qg_etsi004_profile *p, uint32_t status)
{
	for (size_t i = 0; i < p->n_statuses; i++)
		if (p->statuses[i].status == status)
			return p->statuses[i].wire;
	return status;
}

uint32_t
qg_etsi004_status_of_wire(const qg_etsi004_profile *p, uint32_t wire)
{
	for (size_t i = 0; i < p->n_statuses; i++)
		if (p->statuses[i].wire == wire)
			return p->statuses[i].status;
	return wire;
}
