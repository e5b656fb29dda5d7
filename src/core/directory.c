/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "directory_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"
#include "qkdgate/pattern.h"
#include "qkdgate/secret.h"

/* What a name in a table is. The same text may stand for several of them. */
typedef enum name_kind { NAME_URI, NAME_DNS, NAME_CN, NAME_FINGERPRINT, NAME_ID } name_kind;

typedef struct entry {
	const char *name; /* NULL: free */
	const void *owner;
	uint64_t hash;
	name_kind kind;
} entry;

/* Open addressing, at most half full. The hash is keyed, because the names that
 * are looked up come from outside. */
typedef struct table {
	entry *entries;
	size_t mask;
	unsigned char key[crypto_shorthash_KEYBYTES];
} table;

#define PEER_HOME_MAX 80

/* What one configuration says of SAEs; does not change. */
typedef struct view {
	const qg_config *cfg;
	table saes;                       /* local SAEs by certificate and ID */
	table places;                     /* exact entries of the directory by SAE ID */
	const qg_config_place **patterns; /* the other entries, in their order */
	size_t n_patterns;
	uint64_t version;
	qg_config *owned;                 /* cfg, where it is to be freed */
	struct view *older;               /* replaced at this time: */
	uint64_t replaced_ms;
} view;

/* Requests that began under a view that was replaced are long over after it, and
 * calls for key streams after the time that they may wait on top. */
#define VIEW_KEPT_MS (10 * 60 * 1000)

struct lasting_name {
	struct lasting_name *next;
	char text[];
};

struct qg_directory {
	const qg_config *cfg;             /* of the start */
	_Atomic(view *) view;             /* of now */
	table neighbours;                 /* by certificate */
	table peers;                      /* by the certificate of their calls */
	char (*peer_home)[PEER_HOME_MAX]; /* of each peer of the configuration */
	atomic_bool *peer_suspended;      /* likewise */
	qg_learned *learned;
	pthread_mutex_t lock;             /* for another view, and for: */
	struct lasting_name *names;       /* of KMEs that are neither this one nor neighbours */
};

static const view *
view_of(const qg_directory *d)
{
	return atomic_load_explicit(&d->view, memory_order_acquire);
}

/* ASCII only, whatever the locale: DNS names are compared without case. */
static char
lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool
same_name(name_kind kind, const char *a, const char *b)
{
	if (kind != NAME_DNS)
		return strcmp(a, b) == 0;
	while (*a != '\0' && lower(*a) == lower(*b)) {
		a++;
		b++;
	}
	return lower(*a) == lower(*b);
}

static uint64_t
hash_of(const table *t, name_kind kind, const char *name)
{
	char folded[QG_TLS_NAME_MAX];
	const size_t n = strnlen(name, sizeof folded); /* the start is enough: entries compare the whole */
	for (size_t i = 0; kind == NAME_DNS && i < n; i++)
		folded[i] = lower(name[i]);

	uint64_t hash = 0;
	_Static_assert(sizeof hash == crypto_shorthash_BYTES, "the hash is one word");
	const char *const text = kind == NAME_DNS ? folded : name;
	(void)crypto_shorthash((unsigned char *)&hash, (const unsigned char *)text, n, t->key);
	return hash + (uint64_t)kind;
}

static qg_err
table_init(table *t, size_t names)
{
	size_t size = 8;
	if (names > SIZE_MAX / (4 * sizeof(entry)))
		return QG_E_NOMEM;
	while (size < 2 * names)
		size *= 2;
	t->entries = calloc(size, sizeof *t->entries);
	if (t->entries == NULL)
		return QG_E_NOMEM;
	t->mask = size - 1;
	qg_random(t->key, sizeof t->key);
	return QG_OK;
}

static void
table_add(table *t, name_kind kind, const char *name, const void *owner)
{
	if (name == NULL)
		return;
	const uint64_t hash = hash_of(t, kind, name);
	size_t at = (size_t)hash & t->mask;
	while (t->entries[at].name != NULL)
		at = (at + 1) & t->mask;
	t->entries[at] = (entry){.name = name, .owner = owner, .hash = hash, .kind = kind};
}

/* Adds to *found the owner of the name. False when it has another owner than
 * the one found before. */
static bool
table_find(const table *t, name_kind kind, const char *name, const void **found)
{
	const uint64_t hash = hash_of(t, kind, name);
	for (size_t at = (size_t)hash & t->mask; t->entries[at].name != NULL; at = (at + 1) & t->mask) {
		const entry *const e = &t->entries[at];
		if (e->hash != hash || e->kind != kind || !same_name(kind, e->name, name))
			continue;
		if (*found != NULL && *found != e->owner)
			return false;
		*found = e->owner;
	}
	return true;
}

/* The first owner of an ID, or NULL. */
static const void *
table_get(const table *t, const char *id)
{
	const void *found = NULL;
	(void)table_find(t, NAME_ID, id, &found);
	return found;
}

static void
add_match(table *t, const qg_tls_match *match, const void *owner)
{
	table_add(t, NAME_URI, match->uri, owner);
	table_add(t, NAME_DNS, match->dns, owner);
	table_add(t, NAME_CN, match->cn, owner);
	table_add(t, NAME_FINGERPRINT, match->fingerprint, owner);
}

static bool
find_all(const table *t, name_kind kind, const char (*names)[QG_TLS_NAME_MAX], size_t n, const void **found)
{
	for (size_t i = 0; i < n; i++)
		if (!table_find(t, kind, names[i], found))
			return false;
	return true;
}

/* The one owner of all names of the certificate, or NULL. */
static const void *
find_identity(const table *t, const qg_tls_identity *id, const char *what)
{
	const void *found = NULL;
	const bool one = find_all(t, NAME_URI, id->uri, id->n_uri, &found) &&
			 find_all(t, NAME_DNS, id->dns, id->n_dns, &found) &&
			 (id->cn[0] == '\0' || table_find(t, NAME_CN, id->cn, &found)) &&
			 table_find(t, NAME_FINGERPRINT, id->fingerprint, &found);
	if (one)
		return found;
	qg_log(QG_LOG_WARN, "directory", "event=ambiguous_certificate of=%s fingerprint=%s cn=%s", what,
	       qg_log_safe(id->fingerprint), qg_log_safe(id->cn));
	return NULL;
}

static qg_err
add_saes(view *d)
{
	const qg_config *const cfg = d->cfg;
	if (cfg->n_saes > SIZE_MAX / 2 || table_init(&d->saes, 2 * cfg->n_saes) != QG_OK)
		return QG_E_NOMEM;
	for (size_t i = 0; i < cfg->n_saes; i++) {
		table_add(&d->saes, NAME_ID, cfg->saes[i].id, &cfg->saes[i]);
		add_match(&d->saes, &cfg->saes[i].match, &cfg->saes[i]);
	}
	return QG_OK;
}

static qg_err
add_neighbours(qg_directory *d)
{
	const qg_config *const cfg = d->cfg;
	if (table_init(&d->neighbours, cfg->n_neighbours) != QG_OK)
		return QG_E_NOMEM;
	for (size_t i = 0; i < cfg->n_neighbours; i++)
		add_match(&d->neighbours, &cfg->neighbours[i].match, &cfg->neighbours[i]);
	return QG_OK;
}

static qg_err
add_peers(qg_directory *d)
{
	const qg_config *const cfg = d->cfg;
	if (table_init(&d->peers, cfg->n_peers) != QG_OK)
		return QG_E_NOMEM;
	for (size_t i = 0; i < cfg->n_peers; i++)
		add_match(&d->peers, &cfg->peers[i].client, &cfg->peers[i]);
	return QG_OK;
}

static qg_err
add_places(view *d)
{
	const qg_config *const cfg = d->cfg;
	if (table_init(&d->places, cfg->n_directory) != QG_OK)
		return QG_E_NOMEM;
	d->patterns = calloc(cfg->n_directory + 1, sizeof(const qg_config_place *));
	if (d->patterns == NULL)
		return QG_E_NOMEM;
	for (size_t i = 0; i < cfg->n_directory; i++) {
		const qg_config_place *const place = &cfg->directory[i];
		if (strchr(place->sae, '*') != NULL)
			d->patterns[d->n_patterns++] = place;
		else
			table_add(&d->places, NAME_ID, place->sae, place);
	}
	return QG_OK;
}

static void
view_free(view *v)
{
	if (v == NULL)
		return;
	free(v->saes.entries);
	free(v->places.entries);
	free(v->patterns);
	qg_config_free(&v->owned);
	free(v);
}

static qg_err
view_new(const qg_config *cfg, view **out)
{
	view *v = calloc(1, sizeof *v);
	if (v == NULL)
		return QG_E_NOMEM;
	v->cfg = cfg;
	if (add_saes(v) != QG_OK || add_places(v) != QG_OK) {
		view_free(v);
		return QG_E_NOMEM;
	}
	*out = v;
	return QG_OK;
}

static qg_err
name_peers(qg_directory *d)
{
	d->peer_home = calloc(d->cfg->n_peers + 1, sizeof *d->peer_home);
	d->peer_suspended = calloc(d->cfg->n_peers + 1, sizeof *d->peer_suspended);
	if (d->peer_home == NULL || d->peer_suspended == NULL)
		return QG_E_NOMEM;
	for (size_t i = 0; i < d->cfg->n_peers; i++) {
		const int n =
			snprintf(d->peer_home[i], PEER_HOME_MAX, QG_PEER_PREFIX "%s", d->cfg->peers[i].id);
		if (n < 0 || n >= PEER_HOME_MAX)
			return QG_E_NOMEM;
	}
	return QG_OK;
}

qg_err
qg_directory_new(const qg_config *cfg, qg_directory **out)
{
	view *v = NULL;
	qg_directory *d = calloc(1, sizeof *d);
	if (d == NULL)
		return QG_E_NOMEM;
	d->cfg = cfg;
	pthread_mutex_init(&d->lock, NULL);
	if (add_neighbours(d) != QG_OK || add_peers(d) != QG_OK || name_peers(d) != QG_OK ||
	    qg_learned_new(cfg, &d->learned) != QG_OK || view_new(cfg, &v) != QG_OK) {
		qg_directory_free(&d);
		return QG_E_NOMEM;
	}
	v->version = 1;
	atomic_store(&d->view, v);
	*out = d;
	return QG_OK;
}

void
qg_directory_free(qg_directory **d)
{
	if (d == NULL || *d == NULL)
		return;
	for (view *v = atomic_load(&(*d)->view); v != NULL;) {
		view *older = v->older;
		view_free(v);
		v = older;
	}
	free((*d)->neighbours.entries);
	free((*d)->peers.entries);
	free((*d)->peer_home);
	free((*d)->peer_suspended);
	while ((*d)->names != NULL) {
		struct lasting_name *next = (*d)->names->next;
		free((*d)->names);
		(*d)->names = next;
	}
	qg_learned_free(&(*d)->learned);
	pthread_mutex_destroy(&(*d)->lock);
	free(*d);
	*d = NULL;
}

/* Frees what nobody can still be reading. */
static void
forget_old_views(view *newest, uint64_t now_ms)
{
	for (view *v = newest; v->older != NULL; v = v->older) {
		view *old = v->older;
		if (now_ms - old->replaced_ms < VIEW_KEPT_MS + old->cfg->app_streams.max_timeout_ms)
			continue;
		v->older = NULL; /* those behind it are older still */
		while (old != NULL) {
			view *older = old->older;
			view_free(old);
			old = older;
		}
		return;
	}
}

qg_err
qg_directory_renew(qg_directory *d, qg_config **cfg)
{
	view *v = NULL;
	qg_err err = view_new(*cfg, &v);
	if (err != QG_OK)
		return err;
	v->owned = *cfg;
	*cfg = NULL;
	pthread_mutex_lock(&d->lock);
	view *old = atomic_load(&d->view);
	const uint64_t now_ms = qg_clock_elapsed_ms();
	old->replaced_ms = now_ms;
	v->older = old;
	v->version = old->version + 1;
	atomic_store_explicit(&d->view, v, memory_order_release);
	forget_old_views(v, now_ms);
	pthread_mutex_unlock(&d->lock);
	return QG_OK;
}

const qg_config *
qg_directory_config(const qg_directory *d)
{
	return view_of(d)->cfg;
}

uint64_t
qg_directory_version(const qg_directory *d)
{
	return view_of(d)->version;
}

const qg_config_sae *
qg_directory_identify(const qg_directory *d, const qg_tls_identity *id)
{
	return find_identity(&view_of(d)->saes, id, "sae");
}

const qg_config_neighbour *
qg_directory_neighbour(const qg_directory *d, const qg_tls_identity *id)
{
	return find_identity(&d->neighbours, id, "neighbour");
}

const qg_config_peer *
qg_directory_peer(const qg_directory *d, const qg_tls_identity *id)
{
	return find_identity(&d->peers, id, "peer");
}

const qg_config_sae *
qg_directory_local(const qg_directory *d, const char *sae_id)
{
	return table_get(&view_of(d)->saes, sae_id);
}

/* Few: KMEs that the directory names and that are no neighbours. */
static const char *
keep_name(qg_directory *d, const char *kme)
{
	const size_t len = strlen(kme) + 1;
	pthread_mutex_lock(&d->lock);
	struct lasting_name *n = d->names;
	while (n != NULL && strcmp(n->text, kme) != 0)
		n = n->next;
	if (n == NULL && (n = malloc(sizeof *n + len)) != NULL) {
		memcpy(n->text, kme, len);
		n->next = d->names;
		d->names = n;
	}
	pthread_mutex_unlock(&d->lock);
	return n != NULL ? n->text : NULL;
}

/* Names that live as long as the directory: those of KMEs that matter here are
 * this gateway and its neighbours. */
static const char *
lasting(const qg_directory *d, const view *v, const char *kme)
{
	if (v->owned == NULL)
		return kme; /* of the configuration of the start, which stays */
	if (strcmp(kme, d->cfg->kme_id) == 0)
		return d->cfg->kme_id;
	for (size_t i = 0; i < d->cfg->n_neighbours; i++)
		if (strcmp(kme, d->cfg->neighbours[i].id) == 0)
			return d->cfg->neighbours[i].id;
	return keep_name((qg_directory *)(uintptr_t)d, kme); /* that it keeps a name is not seen */
}

static const qg_config_place *
place_of(const view *d, const char *sae_id)
{
	const qg_config_place *const exact = table_get(&d->places, sae_id);
	for (size_t i = 0; exact == NULL && i < d->n_patterns; i++)
		if (qg_pattern_matches(d->patterns[i]->sae, sae_id))
			return d->patterns[i];
	return exact;
}

/* Of the peer that it is behind; NULL: none. */
static const char *
peer_home_of(const qg_directory *d, const char *sae_id)
{
	for (size_t i = 0; i < d->cfg->n_peers; i++)
		for (size_t j = 0; j < d->cfg->peers[i].n_saes; j++)
			if (qg_pattern_matches(d->cfg->peers[i].saes[j], sae_id))
				return d->peer_home[i];
	return NULL;
}

const char *
qg_directory_configured(const qg_directory *d, const char *sae_id)
{
	const view *v = view_of(d);
	if (table_get(&v->saes, sae_id) != NULL)
		return d->cfg->kme_id;
	const qg_config_place *const place = place_of(v, sae_id);
	return place != NULL ? lasting(d, v, place->kme) : peer_home_of(d, sae_id);
}

bool
qg_directory_foreign(const qg_directory *d, const char *sae_id)
{
	const view *v = view_of(d);
	if (table_get(&v->saes, sae_id) != NULL)
		return false;
	const qg_config_place *const place = place_of(v, sae_id);
	return place != NULL ? place->border : peer_home_of(d, sae_id) != NULL;
}

/* Its place in the configuration, or the number of all. */
static size_t
find_peer(const qg_directory *d, const char *id)
{
	size_t i = 0;
	while (i < d->cfg->n_peers && strcmp(d->cfg->peers[i].id, id) != 0)
		i++;
	return i;
}

qg_err
qg_directory_suspend_peer(qg_directory *d, const char *peer_id, bool on)
{
	const size_t i = find_peer(d, peer_id);
	if (i == d->cfg->n_peers)
		return QG_E_NOTFOUND;
	atomic_store(&d->peer_suspended[i], on);
	return QG_OK;
}

bool
qg_directory_peer_suspended(const qg_directory *d, const char *peer_id)
{
	const size_t i = find_peer(d, peer_id);
	return i < d->cfg->n_peers && atomic_load(&d->peer_suspended[i]);
}

bool
qg_directory_home_suspended(const qg_directory *d, const char *home)
{
	return strncmp(home, QG_PEER_PREFIX, sizeof QG_PEER_PREFIX - 1) == 0 &&
	       qg_directory_peer_suspended(d, home + sizeof QG_PEER_PREFIX - 1);
}

const char *
qg_directory_peer_home(const qg_directory *d, const char *peer_id)
{
	for (size_t i = 0; i < d->cfg->n_peers; i++)
		if (strcmp(d->cfg->peers[i].id, peer_id) == 0)
			return d->peer_home[i];
	return NULL;
}

qg_learned *
qg_directory_learned(const qg_directory *d)
{
	return d->learned;
}

const char *
qg_directory_home(const qg_directory *d, const char *sae_id)
{
	const char *const home = qg_directory_configured(d, sae_id);
	return home != NULL ? home : qg_learned_home(d->learned, sae_id);
}

void
qg_directory_tell(const qg_directory *d, qg_kms_saes *out)
{
	qg_learned_tell(d->learned, view_of(d)->cfg, out);
}
