/* SPDX-License-Identifier: Apache-2.0 */
/* Certificate chains that were verified: see tls_internal.h. Entries stand in
 * small sets chosen by the key; a full set gives up the one not used for
 * longest. Keys are keyed hashes, so nobody can choose chains that meet in one
 * set, and a set that is full costs a verification, never a wrong answer. */
#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "tls_internal.h"

#define WAYS 4u

/* What a certificate says, packed: most have one or two short names. */
typedef struct entry {
	qg_chain_key key;
	int64_t from_s, until_s;
	uint64_t used; /* of the cache's count of uses */
	size_t n_uri, n_dns;
	char fingerprint[sizeof(((qg_tls_identity *)0)->fingerprint)];
	char names[]; /* URIs, DNS names, common name, each with its NUL */
} entry;

struct qg_chains {
	uint8_t hash_key[crypto_generichash_blake2b_KEYBYTES];
	pthread_mutex_t lock; /* of all below */
	uint64_t uses;
	size_t n_sets;
	entry **slot; /* WAYS for each set; NULL until there is a first chain */
};

qg_err
qg_chains_new(size_t most, qg_chains **out)
{
	qg_chains *c = calloc(1, sizeof *c);
	if (c == NULL)
		return QG_E_NOMEM;
	c->n_sets = most > WAYS ? most / WAYS : 1;
	qg_random(c->hash_key, sizeof c->hash_key);
	pthread_mutex_init(&c->lock, NULL);
	*out = c;
	return QG_OK;
}

void
qg_chains_free(qg_chains **c)
{
	if (c == NULL || *c == NULL)
		return;
	for (size_t i = 0; (*c)->slot != NULL && i < (*c)->n_sets * WAYS; i++)
		free((*c)->slot[i]);
	pthread_mutex_destroy(&(*c)->lock);
	free((*c)->slot);
	free(*c);
	*c = NULL;
}

void
qg_chains_key(const qg_chains *c, const qg_chain_part *parts, size_t n, qg_chain_key *out)
{
	crypto_generichash_blake2b_state st;
	(void)crypto_generichash_blake2b_init(&st, c->hash_key, sizeof c->hash_key, sizeof out->b);
	for (size_t i = 0; i < n; i++) {
		const uint64_t len = parts[i].len; /* first, so that no two lists of parts look alike */
		(void)crypto_generichash_blake2b_update(&st, (const uint8_t *)&len, sizeof len);
		(void)crypto_generichash_blake2b_update(&st, parts[i].data, parts[i].len);
	}
	(void)crypto_generichash_blake2b_final(&st, out->b, sizeof out->b);
}

static entry **
set_of(const qg_chains *c, const qg_chain_key *key)
{
	uint64_t h;
	memcpy(&h, key->b, sizeof h);
	return c->slot != NULL ? c->slot + h % c->n_sets * WAYS : NULL;
}

static entry **
find(const qg_chains *c, const qg_chain_key *key)
{
	entry **set = set_of(c, key);
	for (size_t i = 0; c->slot != NULL && i < WAYS; i++)
		if (set[i] != NULL && memcmp(&set[i]->key, key, sizeof *key) == 0)
			return &set[i];
	return NULL;
}

/* --- names ---------------------------------------------------------------- */

static size_t
names_len(const qg_tls_identity *id)
{
	size_t len = strlen(id->cn) + 1;
	for (size_t i = 0; i < id->n_uri; i++)
		len += strlen(id->uri[i]) + 1;
	for (size_t i = 0; i < id->n_dns; i++)
		len += strlen(id->dns[i]) + 1;
	return len;
}

static char *
pack(char *at, const char *name)
{
	const size_t len = strlen(name) + 1;
	memcpy(at, name, len);
	return at + len;
}

static const char *
unpack(const char *at, char name[QG_TLS_NAME_MAX])
{
	const size_t len = strlen(at) + 1;
	memcpy(name, at, len);
	return at + len;
}

static entry *
entry_new(const qg_chain_key *key, const qg_tls_identity *id)
{
	entry *e = calloc(1, sizeof *e + names_len(id));
	if (e == NULL)
		return NULL;
	e->key = *key;
	e->n_uri = id->n_uri;
	e->n_dns = id->n_dns;
	memcpy(e->fingerprint, id->fingerprint, sizeof e->fingerprint);
	char *at = e->names;
	for (size_t i = 0; i < id->n_uri; i++)
		at = pack(at, id->uri[i]);
	for (size_t i = 0; i < id->n_dns; i++)
		at = pack(at, id->dns[i]);
	(void)pack(at, id->cn);
	return e;
}

static void
entry_read(const entry *e, qg_tls_identity *out)
{
	const char *at = e->names;
	for (size_t i = 0; i < e->n_uri; i++)
		at = unpack(at, out->uri[i]);
	for (size_t i = 0; i < e->n_dns; i++)
		at = unpack(at, out->dns[i]);
	(void)unpack(at, out->cn);
	out->n_uri = e->n_uri;
	out->n_dns = e->n_dns;
	memcpy(out->fingerprint, e->fingerprint, sizeof out->fingerprint);
}

/* --- use ------------------------------------------------------------------- */

bool
qg_chains_find(qg_chains *c, const qg_chain_key *key, int64_t now_s, qg_tls_identity *out)
{
	pthread_mutex_lock(&c->lock);
	entry **at = find(c, key);
	bool valid = at != NULL && now_s > (*at)->from_s && now_s < (*at)->until_s;
	if (valid) {
		(*at)->used = ++c->uses;
		if (out != NULL)
			entry_read(*at, out);
	} else if (at != NULL) {
		free(*at);
		*at = NULL;
	}
	pthread_mutex_unlock(&c->lock);
	return valid;
}

/* A free place, or that of the one not used for longest. */
static entry **
place_for(const qg_chains *c, const qg_chain_key *key)
{
	entry **at = find(c, key);
	if (at != NULL)
		return at;
	entry **set = set_of(c, key);
	at = set;
	for (size_t i = 0; i < WAYS && *at != NULL; i++)
		if (set[i] == NULL || set[i]->used < (*at)->used)
			at = &set[i];
	return at;
}

void
qg_chains_put(qg_chains *c, const qg_chain_key *key, int64_t from_s, int64_t until_s,
	      const qg_tls_identity *id)
{
	entry *e = entry_new(key, id);
	if (e == NULL) /* it will be verified again */
		return;
	e->from_s = from_s;
	e->until_s = until_s;
	entry *old = e; /* where there is no memory for the table */
	pthread_mutex_lock(&c->lock);
	if (c->slot == NULL)
		c->slot = calloc(c->n_sets * WAYS, sizeof *c->slot);
	if (c->slot != NULL) {
		entry **at = place_for(c, key);
		old = *at;
		e->used = ++c->uses;
		*at = e;
	}
	pthread_mutex_unlock(&c->lock);
	free(old);
}
