/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_DIRECTORY_H
#define QKDGATE_DIRECTORY_H

#include "qkdgate/config.h"
#include "qkdgate/error.h"
#include "qkdgate/tls.h"

/* Who is who and where: the SAEs of this node by certificate and by ID (hash
 * index), and the home KME of every other SAE. Immutable once made; any
 * thread. */

typedef struct qg_directory qg_directory;

/* Refers to cfg, which must outlive it. QG_E_NOMEM. */
qg_err qg_directory_new(const qg_config *cfg, qg_directory **out) QG_CHECKED;
void qg_directory_free(qg_directory **d);

/* The local SAE whose certificate this is; NULL when none, or when more than
 * one is named by it (which is logged). */
const qg_config_sae *qg_directory_identify(const qg_directory *d, const qg_tls_identity *id);

/* The neighbour whose certificate this is, or NULL. */
const qg_config_neighbour *qg_directory_neighbour(const qg_directory *d, const qg_tls_identity *id);

/* The local SAE of that ID, or NULL. */
const qg_config_sae *qg_directory_local(const qg_directory *d, const char *sae_id);

/* The KME at which an SAE lives (this one's ID for local SAEs), or NULL. */
const char *qg_directory_home(const qg_directory *d, const char *sae_id);

#endif
