/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration files: accepted, or refused with a report. */
#include "fuzz.h"

#include <sys/mman.h>
#include <unistd.h>

#include "qkdgate/config.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char path[64];
	char *report = NULL;
	size_t report_len = 0;
	qg_config *c = NULL;
	int fd = memfd_create("config", MFD_CLOEXEC);
	HOLDS(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	FILE *out = open_memstream(&report, &report_len);
	HOLDS(out != NULL);
	qg_err err = qg_config_load(path, out, &c);
	HOLDS(fclose(out) == 0);
	if (err == QG_OK)
		HOLDS(c != NULL && c->kme_id != NULL && report_len == 0);
	else
		HOLDS(report_len > 0);
	qg_config_free(&c);
	free(report);
	close(fd);
	return 0;
}
