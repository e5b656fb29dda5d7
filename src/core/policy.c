/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/policy.h"

#include "qkdgate/pattern.h"

static bool
allows(const qg_config_rule *rule, const char *master, const char *slave)
{
	if (!qg_pattern_matches(rule->master, master))
		return false;
	for (size_t i = 0; i < rule->n_slaves; i++)
		if (qg_pattern_matches(rule->slaves[i], slave))
			return true;
	return false;
}

static qg_policy_terms
terms_of(const qg_config_rule *rule)
{
	return (qg_policy_terms){
		.min_key_bits = rule->min_key_bits,
		.max_key_bits = rule->max_key_bits,
		.default_key_bits = rule->default_key_bits,
		.max_keys = rule->max_keys,
		.max_extra_slaves = rule->max_extra_slaves,
	};
}

qg_err
qg_policy_pair(const qg_config *cfg, const char *master, const char *slave, qg_policy_terms *out)
{
	for (size_t i = 0; i < cfg->n_policy; i++) {
		const qg_config_rule *const rule = &cfg->policy[i];
		if (allows(rule, master, slave) || (rule->both_ways && allows(rule, slave, master))) {
			*out = terms_of(rule);
			return QG_OK;
		}
	}
	return QG_E_DENIED;
}

bool
qg_policy_may_know(const qg_config *cfg, const char *caller, const char *other)
{
	for (size_t i = 0; i < cfg->n_policy; i++)
		if (allows(&cfg->policy[i], caller, other) || allows(&cfg->policy[i], other, caller))
			return true;
	return false;
}
