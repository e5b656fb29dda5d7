/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/etsi004.h"

uint32_t
qg_etsi004_status_to_wire(const qg_etsi004_profile *p, uint32_t status)
{
	for (size_t i = 0; i < p->n_statuses; i++)
		if (p->statuses[i].status == status)
			return p->statuses[i].wire;
	return status;
}

uint32_t
qg_etsi004_status_of_wire(const qg_etsi004_profile *p, uint32_t wire)
{
	for (size_t i = 0; i < p->n_statuses; i++)
		if (p->statuses[i].wire == wire)
			return p->statuses[i].status;
	return wire;
}
