/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_PKI_H
#define TEST_PKI_H

/* A demo authority made by certs/make-pki in a temporary folder. Tests run
 * from the root of the repository. */
#include <dirent.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "qkdgate/tls.h"

extern char **environ;

static char pki_dir[64];

static inline int
pki_make(void)
{
	char script[] = "certs/make-pki";
	snprintf(pki_dir, sizeof pki_dir, "/tmp/qg-pki-XXXXXX");
	if (mkdtemp(pki_dir) == NULL)
		return -1;
	char *argv[] = {script, pki_dir, NULL};
	pid_t pid;
	int status = -1;
	if (posix_spawn(&pid, script, NULL, NULL, argv, environ) != 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
}

static inline void
pki_remove(void)
{
	DIR *d = opendir(pki_dir);
	for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
		char path[512];
		snprintf(path, sizeof path, "%s/%s", pki_dir, e->d_name);
		if (e->d_name[0] != '.')
			unlink(path);
	}
	if (d != NULL)
		closedir(d);
	rmdir(pki_dir);
}

/* The n-th of a ring of strings that live on: file names for a qg_tls_files. */
static inline const char *
pki_file(const char *name, const char *suffix)
{
	static _Thread_local char ring[64][128];
	static _Thread_local unsigned at;
	char *s = ring[at++ % 64];
	snprintf(s, sizeof ring[0], "%s/%s%s", pki_dir, name, suffix);
	return s;
}

static inline qg_tls_files
pki_files(const char *name)
{
	return (qg_tls_files){
		.certificate = pki_file(name, ".pem"),
		.key = pki_file(name, ".key"),
		.ca = pki_file("ca", ".pem"),
		.crl = pki_file("crl", ".pem"),
		.min_version = QG_TLS_1_3,
	};
}

#endif
