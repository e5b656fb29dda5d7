/* SPDX-License-Identifier: Apache-2.0 */
/* What comes in through ${VARIABLE}: the input is the variable's value, after a NUL
 * the text of a value in which ${QG_FUZZ} may stand. A variable is text and never
 * YAML: what it holds is either refused or stands in the value as it is, and where
 * the place of a key is asked for, no report shows it unless it is clearly one. */
#include "fuzz.h"

#include <sys/mman.h>
#include <unistd.h>

#include "qkdgate/config.h"

#define NAME "QG_FUZZ"
#define MARK "~c0ffee~"

static qg_err
load(const char *text, size_t n, char **report, qg_config **out)
{
	char path[64];
	size_t len = 0;
	int fd = memfd_create("config", MFD_CLOEXEC);
	HOLDS(fd >= 0 && write(fd, text, n) == (ssize_t)n);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	FILE *f = open_memstream(report, &len);
	HOLDS(f != NULL);
	const qg_err err = qg_config_load(path, f, out);
	HOLDS(fclose(f) == 0);
	close(fd);
	return err;
}

/* The value alone: it is the name of the node, or a report does not show it. */
static void
plain(const char *value)
{
	static const char rest[] =
		"kme: {id: \"${" NAME "}\"}\n"
		"sae_listener: {listen: \"127.0.0.1:1\", certificate: c, key: k, ca: a}\n"
		"kms_listener: {listen: \"127.0.0.1:2\", certificate: c, key: k, ca: a}\n"
		"store: {database: d, anchor: an, master_key: m, key_ring: r}\n"
		"audit: {file: f}\n"
		"saes: [{id: sae-alice, certificate: {cn: x}}]\n";
	char *report = NULL;
	qg_config *c = NULL;
	if (load(rest, sizeof rest - 1, &report, &c) == QG_OK)
		HOLDS(strcmp(c->kme_id, value) == 0);
	else
		HOLDS(report[0] != '\0' && strcmp(value, "KME-A") != 0); /* which is a good name */
	qg_config_free(&c);
	free(report);
}

static bool
begins(const char *text, const char *with)
{
	return strncmp(text, with, strlen(with)) == 0;
}

/* The variable may be the key itself, put there by mistake. Text of more than one
 * value is left out. */
static bool
may_be_key(const char *text, const char *value)
{
	const char *const at = text + (text[0] == '"' || text[0] == '\'' ? 1 : 0);
	for (const char *p = text; *p != '\0'; p++)
		if (*p < ' ' || *p > '~' || *p == ',')
			return false;
	return begins(at, "${") && strstr(text, MARK) == NULL && value[0] != '/' &&
	       !begins(value, "secret:") && !begins(value, "credential:");
}

/* Any text around it, in a value that is the place of a key. The mark behind the
 * variable stands nowhere else in a report. */
static void
around(const char *text, const char *value)
{
	char *report = NULL, *config = NULL, *marked = NULL;
	size_t len = 0;
	qg_config *c = NULL;
	HOLDS(asprintf(&marked, "%s" MARK, value) > 0 && setenv(NAME, marked, 1) == 0);
	FILE *f = open_memstream(&config, &len);
	HOLDS(f != NULL && fprintf(f, "store: {master_key: %s}\n", text) > 0 && fclose(f) == 0);
	HOLDS(load(config, len, &report, &c) == QG_OK || report[0] != '\0');
	HOLDS(!may_be_key(text, value) || strstr(report, MARK) == NULL);
	qg_config_free(&c);
	free(report);
	free(config);
	free(marked);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *value = text_of(data, size);
	const size_t used = strlen(value);
	HOLDS(setenv(NAME, value, 1) == 0);
	plain(value);
	if (used < size) {
		char *text = text_of(data + used + 1, size - used - 1);
		around(text, value);
		free(text);
	}
	free(value);
	return 0;
}
