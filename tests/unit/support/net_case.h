/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NET_CASE_H
#define NET_CASE_H

/* What a case over a network of cores has: the network, keys that were issued and
 * keys that were fetched. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "core_net.c"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
enum { A, B, C, D, E };

static core_net *n;
static pair_keys *k, *got;

static int setup(void **state)
{
	(void)state;
	k = keys_new();
	got = keys_new();
	return 0;
}

/* The end of a case; what is good of it is looked at while the network is there. */
static int end_case(bool good)
{
	net_free(&n);
	keys_free(&k);
	keys_free(&got);
	return good ? 0 : -1;
}

#endif
