/* SPDX-License-Identifier: Apache-2.0 */
/* What rests on disk and may have been changed there: the anchor, the key ring
 * and sealed blobs, chosen by the first byte. Nothing of it is taken. */
#include "fuzz.h"

#include <stdbool.h>
#include <sys/stat.h>
#include <unistd.h>

#include "qkdgate/anchor.h"
#include "qkdgate/seal.h"

static char folder[64];
static char anchor[80], ring[80], master[80];

static void
clean(void)
{
	unlink(anchor);
	unlink(ring);
	unlink(master);
	rmdir(folder);
}

static void
put(const char *path, const uint8_t *data, size_t n)
{
	FILE *f = fopen(path, "wb");
	HOLDS(f != NULL && fwrite(data, 1, n, f) == n && fclose(f) == 0 && chmod(path, 0600) == 0);
}

static void
setup(void)
{
	static bool done;
	if (done)
		return;
	done = true;
	make_folder(folder);
	HOLDS(atexit(clean) == 0);
	snprintf(anchor, sizeof anchor, "%s/anchor", folder);
	snprintf(ring, sizeof ring, "%s/ring", folder);
	snprintf(master, sizeof master, "%s/master", folder);
	HOLDS(qg_seal_make_master_key(master) == QG_OK);
}

static void
try_anchor(const uint8_t *data, size_t size)
{
	static const uint8_t key[32] = {9};
	bool found = false;
	qg_anchor_state state;
	qg_anchor *a = NULL;
	put(anchor, data, size);
	qg_err err = qg_anchor_open(anchor, key, &found, &state, &a);
	HOLDS(size == 0 ? err == QG_OK && !found : err != QG_OK || !found);
	if (err == QG_OK)
		qg_anchor_close(&a);
}

static void
try_ring(const uint8_t *data, size_t size)
{
	qg_seal_options o = {.master_key = master, .key_ring = ring, .rotate_s = 3600};
	qg_sealer *s = NULL;
	put(ring, data, size);
	HOLDS(qg_sealer_open(&o, &s) != QG_OK);
	HOLDS(s == NULL);
}

static void
try_blob(const uint8_t *data, size_t size)
{
	static qg_sealer *s;
	qg_seal_options o = {.master_key = master, .key_ring = ring, .rotate_s = 3600};
	if (s == NULL) {
		unlink(ring);
		HOLDS(qg_sealer_open(&o, &s) == QG_OK);
	}
	qg_secret *out = NULL;
	char *blob = copy_of(data, size);
	HOLDS(qg_sealer_unseal(s, "place", 5, (uint8_t *)blob, size, &out) != QG_OK && out == NULL);
	(void)qg_seal_generation((uint8_t *)blob, size);
	free(blob);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	setup();
	if (size == 0)
		return 0;
	if (data[0] % 3 == 0)
		try_anchor(data + 1, size - 1);
	else if (data[0] % 3 == 1)
		try_ring(data + 1, size - 1);
	else
		try_blob(data + 1, size - 1);
	return 0;
}
