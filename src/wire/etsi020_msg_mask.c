/* SPDX-License-Identifier: Apache-2.0 */
/* The mask of the values on a Kxi, as a property of extension_mandatory. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "etsi020_msg_internal.h"
#include "kms_msg_internal.h"

#define VERSION 1

static const qg_kms_field pad_fields[] = {
	BYTES(qg_kms_pad, epoch),
	NUMBER(qg_kms_pad, segment, 0, UINT32_MAX),
	NUMBER(qg_kms_pad, offset, 0, UINT32_MAX),
	NUMBER(qg_kms_pad, len, 1, UINT32_MAX),
};

static const qg_kms_field mask_fields[] = {
	NAME(qg_020_mask, link),
	LIST("pads", qg_020_mask, pad, n_pads, 2, QG_KMS_PADS_MAX, pad_fields, .distinct = false),
	NUMBER(qg_020_mask, oldest_mac, 0, UINT32_MAX),
	NUMBER(qg_020_mask, oldest_pad, 0, UINT32_MAX),
	BYTES(qg_020_mask, mac),
};

void
qg_020_mask_name(uint32_t pen, char out[QG_020_MASK_NAME_MAX])
{
	const int n = snprintf(out, QG_020_MASK_NAME_MAX, "E%" PRIu32 "_kxi_mask", pen);
	assert(n > 0 && n < QG_020_MASK_NAME_MAX);
	(void)n;
}

qg_err
qg_020_mask_read(const struct json_t *mandatory, const char *name, qg_020_mask *out)
{
	qg_020_mask m = {.n_pads = 0};
	const json_t *const object = json_object_get(mandatory, name);
	if (object == NULL)
		return QG_E_NOTFOUND;
	const json_t *const version = json_object_get(object, "version");
	if (!json_is_integer(version) || json_integer_value(version) != VERSION)
		return QG_E_PARSE;
	const qg_err err = qg_kms_fields_get(object, mask_fields, COUNT(mask_fields), 1, &m);
	if (err == QG_OK)
		*out = m;
	return err;
}

qg_err
qg_020_mask_write(const qg_020_mask *m, const char *name, char **out)
{
	json_t *const all = json_object();
	json_t *const object = json_object();
	qg_err err = QG_E_NOMEM;
	if (all != NULL && object != NULL && json_object_set_new(object, "version", json_integer(VERSION)) == 0)
		err = qg_kms_fields_put(object, mask_fields, COUNT(mask_fields), m);
	if (err == QG_OK && json_object_set(all, name, object) != 0)
		err = QG_E_NOMEM;
	char *const text = err == QG_OK ? json_dumps(all, JSON_COMPACT) : NULL;
	json_decref(object);
	json_decref(all);
	if (err == QG_OK && text == NULL)
		err = QG_E_NOMEM;
	if (err == QG_OK)
		*out = text;
	return err;
}
