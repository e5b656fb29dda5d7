/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_DIRECTORY_INTERNAL_H
#define QKDGATE_DIRECTORY_INTERNAL_H

#include "qkdgate/directory.h"

/* directory_learn.c: where neighbours say that SAEs live. A lock of its own,
 * never held over another; any thread. */

typedef struct qg_learned qg_learned;

qg_err qg_learned_new(const qg_config *cfg, qg_learned **out) QG_CHECKED;
void qg_learned_free(qg_learned **l);

/* The KME that claims the SAE, a string of the configuration, or NULL. */
const char *qg_learned_home(qg_learned *l, const char *sae_id);

/* qg_directory_tell. */
void qg_learned_tell(qg_learned *l, const qg_config *cfg, qg_kms_saes *out);

/* Where the configuration has the SAE, or NULL (directory.c). */
const char *qg_directory_configured(const qg_directory *d, const char *sae_id);

/* The part that learns. */
qg_learned *qg_directory_learned(const qg_directory *d);

#endif
