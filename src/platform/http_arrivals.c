/* SPDX-License-Identifier: Apache-2.0 */
/* How often connections begin from one address: a bucket for each, in a table of
 * fixed size, where the one that was away longest makes room. An address that has
 * lost its bucket begins with a full one. */
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "http_internal.h"
#include "qkdgate/bytes.h"
#include "qkdgate/clock.h"

#define BURST_S 10u
#define SETS 1024u
#define WAYS 4u
#define PREFIX_BYTES 8 /* of an IPv6 address: who has one has all of its /64 */

typedef struct bucket {
	qg_census_key key;
	bool used;
	uint64_t seen_ms;
	uint64_t left; /* thousandths of a connection */
} bucket;

struct qg_arrivals {
	pthread_mutex_t lock;
	uint64_t per_s, most; /* thousandths */
	uint64_t refused;
	bucket table[SETS][WAYS];
};

qg_err
qg_arrivals_new(unsigned per_s, qg_arrivals **out)
{
	*out = NULL;
	if (per_s == 0)
		return QG_OK;
	qg_arrivals *a = calloc(1, sizeof *a);
	if (a == NULL)
		return QG_E_NOMEM;
	pthread_mutex_init(&a->lock, NULL);
	a->per_s = per_s;
	a->most = (uint64_t)per_s * BURST_S * 1000;
	*out = a;
	return QG_OK;
}

void
qg_arrivals_free(qg_arrivals **a)
{
	if (a == NULL || *a == NULL)
		return;
	pthread_mutex_destroy(&(*a)->lock);
	free(*a);
	*a = NULL;
}

static qg_census_key
origin_of(const struct sockaddr *from)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
	qg_census_key key = qg_census_key_of(from);
	if (memcmp(key.bytes, mapped, sizeof mapped) != 0)
		memset(key.bytes + PREFIX_BYTES, 0, sizeof key.bytes - PREFIX_BYTES);
	return key;
}

/* Its bucket, or the one that makes room for it, filled. */
static bucket *
find(qg_arrivals *a, const qg_census_key *key, uint64_t now_ms)
{
	bucket *set = a->table[qg_hash(key->bytes, sizeof key->bytes) % SETS], *oldest = &set[0];
	for (bucket *b = set; b < set + WAYS; b++) {
		if (b->used && memcmp(&b->key, key, sizeof *key) == 0)
			return b;
		if (oldest->used && (!b->used || b->seen_ms < oldest->seen_ms))
			oldest = b;
	}
	*oldest = (bucket){.key = *key, .used = true, .seen_ms = now_ms, .left = a->most};
	return oldest;
}

bool
qg_arrivals_let_in(qg_arrivals *a, const struct sockaddr *from)
{
	if (a == NULL)
		return true;
	const qg_census_key key = origin_of(from);
	const uint64_t now_ms = qg_clock_elapsed_ms();
	pthread_mutex_lock(&a->lock);
	bucket *b = find(a, &key, now_ms);
	const uint64_t away_ms = now_ms > b->seen_ms ? now_ms - b->seen_ms : 0;
	const uint64_t more = away_ms >= BURST_S * 1000 ? a->most : away_ms * a->per_s;
	b->left = b->left + more < a->most ? b->left + more : a->most;
	b->seen_ms = now_ms;
	const bool yes = b->left >= 1000;
	if (yes)
		b->left -= 1000;
	else
		a->refused++;
	pthread_mutex_unlock(&a->lock);
	return yes;
}

uint64_t
qg_arrivals_refused(qg_arrivals *a)
{
	if (a == NULL)
		return 0;
	pthread_mutex_lock(&a->lock);
	const uint64_t n = a->refused;
	pthread_mutex_unlock(&a->lock);
	return n;
}
