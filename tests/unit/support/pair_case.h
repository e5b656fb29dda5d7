/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAIR_CASE_H
#define PAIR_CASE_H

/* What a case over a pair of cores has: the pair, keys that were issued and keys
 * that were fetched. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "core_pair.c"

static core_pair *p;
static pair_keys *k, *got;

static int setup(void **state)
{
	(void)state;
	k = keys_new();
	got = keys_new();
	return 0;
}

/* The end of a case; what is good of it is looked at while the pair is there. */
static int end_case(bool good)
{
	pair_free(&p);
	keys_free(&k);
	keys_free(&got);
	return good ? 0 : -1;
}

#endif
