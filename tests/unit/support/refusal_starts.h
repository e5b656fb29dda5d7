/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REFUSAL_STARTS_H
#define REFUSAL_STARTS_H

#include "refusal.h"

#include "qkdgate/core.h"

/* While the first is set, each start of a core is a round; the others say of the last whether it
 * met a refusal, and whether it failed and gave no reason. */
static bool refusal_of_starts, refusal_met_start, refusal_silent_start;

qg_err __real_qg_core_start(const qg_core_parts *parts, qg_core **out, char *why, size_t why_room);
qg_err __wrap_qg_core_start(const qg_core_parts *parts, qg_core **out, char *why, size_t why_room);

qg_err __wrap_qg_core_start(const qg_core_parts *parts, qg_core **out, char *why, size_t why_room)
{
	if (!refusal_of_starts)
		return __real_qg_core_start(parts, out, why, why_room);
	refusal_arm(1, true);
	const qg_err err = __real_qg_core_start(parts, out, why, why_room);
	refusal_met_start = refusal_disarm();
	refusal_silent_start = err != QG_OK && why[0] == '\0';
	return err;
}

#endif
