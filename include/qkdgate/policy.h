/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_POLICY_H
#define QKDGATE_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "qkdgate/config.h"
#include "qkdgate/error.h"

/* Which master may share keys with which slave, and how much. Default deny:
 * a pair without a rule may nothing. The first matching rule decides. */

typedef struct qg_policy_terms {
	uint32_t min_key_bits, max_key_bits, default_key_bits;
	uint32_t max_keys;
	uint32_t max_extra_slaves;
} qg_policy_terms;

/* Pure lookup in cfg->policy. QG_E_DENIED when no rule allows the pair. */
qg_err qg_policy_pair(const qg_config *cfg, const char *master, const char *slave, qg_policy_terms *out) QG_CHECKED;

/* Whether any rule names this SAE (as either side, exactly or by pattern) as
 * partner of the caller: only then may the caller learn that it is unknown. */
bool qg_policy_may_know(const qg_config *cfg, const char *caller, const char *other);

#endif
