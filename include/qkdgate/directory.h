/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_DIRECTORY_H
#define QKDGATE_DIRECTORY_H

#include <stdbool.h>

#include "qkdgate/config.h"
#include "qkdgate/error.h"
#include "qkdgate/kms_msg.h"
#include "qkdgate/tls.h"

/* Who is who and where: the SAEs of this node by certificate and by ID (hash
 * index), and the home KME of every other SAE. What the configuration says goes
 * first, and can be replaced as a whole; what neighbours say of their SAEs is learned where
 * the configuration lets them (`learn`). Any thread. */

typedef struct qg_directory qg_directory;

/* Refers to cfg, which must outlive it. QG_E_NOMEM. */
qg_err qg_directory_new(const qg_config *cfg, qg_directory **out) QG_CHECKED;
void qg_directory_free(qg_directory **d);

/* Takes SAEs, directory and policy from another configuration from now on, which
 * is its own then (*cfg becomes NULL). What was handed out of the one before
 * stays valid for ten minutes beyond app_streams.max_timeout_ms: longer than any
 * request. QG_E_NOMEM. */
qg_err qg_directory_renew(qg_directory *d, qg_config **cfg) QG_CHECKED;

/* The configuration that SAEs, directory and policy are taken from now. */
const qg_config *qg_directory_config(const qg_directory *d);

/* Another number after each qg_directory_renew; never 0. Cheap. */
uint64_t qg_directory_version(const qg_directory *d);

/* The local SAE whose certificate this is; NULL when none, or when more than
 * one is named by it (which is logged). */
const qg_config_sae *qg_directory_identify(const qg_directory *d, const qg_tls_identity *id);

/* The neighbour whose certificate this is, or NULL. */
const qg_config_neighbour *qg_directory_neighbour(const qg_directory *d, const qg_tls_identity *id);

/* The key manager of another network whose certificate this is, or NULL. */
const qg_config_peer *qg_directory_peer(const qg_directory *d, const qg_tls_identity *id);

/* The local SAE of that ID, or NULL. */
const qg_config_sae *qg_directory_local(const qg_directory *d, const char *sae_id);

/* The KME at which an SAE lives (this one's ID for local SAEs; QG_PEER_PREFIX and
 * the peer's ID for one behind a peer; the border to another network for one
 * there), or NULL. The string lives as long as the directory. */
const char *qg_directory_home(const qg_directory *d, const char *sae_id);

/* Whether the SAE belongs to another network, behind a peer of this node or of
 * the border that the directory names for it. */
bool qg_directory_foreign(const qg_directory *d, const char *sae_id);

/* A peer is suspended: no key goes to it or is taken from it, until it is resumed or
 * the directory is freed. What was begun comes to its end. QG_E_NOTFOUND. */
qg_err qg_directory_suspend_peer(qg_directory *d, const char *peer_id, bool on) QG_CHECKED;
bool qg_directory_peer_suspended(const qg_directory *d, const char *peer_id);
/* Whether that home is one behind a peer that is suspended. */
bool qg_directory_home_suspended(const qg_directory *d, const char *home);

/* The home of SAEs behind that peer, as _home gives it; NULL: no such peer. */
const char *qg_directory_peer_home(const qg_directory *d, const char *peer_id);

#define QG_DIRECTORY_LEARNED_MAX 65536 /* SAE IDs learned, from all neighbours */

/* A neighbour tells which SAEs live there: this list takes the place of the one
 * before. Taken are those that match its `learn` patterns, that the
 * configuration has nowhere, and that no other neighbour claimed before and
 * still does; conflicts are refused and logged. */
void qg_directory_learn(qg_directory *d, const char *kme, const qg_kms_saes *saes);

/* The SAEs of this node, for its messages: the first QG_KMS_SAES_MAX; that
 * there are more is logged once. */
void qg_directory_tell(const qg_directory *d, qg_kms_saes *out);

#endif
