/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a fuzz target once over each file of the folders that are named, or of
 * tests/fuzz/corpus/TARGET, and reports in the form of the unit programs. */
#include <dirent.h>
#include <libgen.h>
#include <stdbool.h>

#include "fuzz.h"

#define INPUT_MAX ((size_t)1 << 20)

static void
replay_file(const char *path)
{
	static uint8_t input[INPUT_MAX];
	FILE *f = fopen(path, "rb");
	HOLDS(f != NULL);
	size_t n = fread(input, 1, sizeof input, f);
	HOLDS(fclose(f) == 0);
	uint8_t *exact = (uint8_t *)copy_of(input, n);
	(void)LLVMFuzzerTestOneInput(exact, n);
	free(exact);
}

static unsigned
replay_folder(const char *folder)
{
	unsigned n = 0;
	DIR *d = opendir(folder);
	if (d == NULL)
		return 0;
	for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
		char path[4096];
		if (e->d_name[0] == '.')
			continue;
		int len = snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
		HOLDS(len > 0 && (size_t)len < sizeof path);
		replay_file(path);
		n++;
	}
	closedir(d);
	return n;
}

int
main(int argc, char **argv)
{
	char folder[4096];
	unsigned n = 0;
	for (int i = 1; i < argc; i++)
		n += replay_folder(argv[i]);
	if (argc == 1) {
		const char *name = basename(argv[0]);
		snprintf(folder, sizeof folder, "tests/fuzz/corpus/%s", name);
		n += replay_folder(folder);
		snprintf(folder, sizeof folder, "tests/fuzz/crashes/%s", name);
		n += replay_folder(folder);
	}
	printf("[  %s  ] %u test(s).\n", n > 0 ? "PASSED" : "FAILED", n > 0 ? n : 1);
	return n > 0 ? 0 : 1;
}
