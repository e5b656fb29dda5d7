/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_KEYFILE_INTERNAL_H
#define QKDGATE_KEYFILE_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "qkdgate/error.h"

/* Small files that must be private and durable: master key, key ring, anchor,
 * database. Any thread. */

/* Closes *fd when it is open; for the cleanup attribute. */
void qg_keyfile_close(int *fd);
#define QG_FD_AUTO __attribute__((cleanup(qg_keyfile_close))) int

/* Opens a file that is there. QG_E_NOTFOUND when it is not, QG_E_MODE when it
 * is no regular file, belongs to someone other than this user or root, or has
 * a mode bit of `loose` set; QG_E_IO. */
qg_err qg_keyfile_open(const char *path, int flags, mode_t loose, int *out) QG_CHECKED;

/* The same check without opening: closing any descriptor of a file drops this
 * process's record locks on it, SQLite's among them. */
qg_err qg_keyfile_check(const char *path, mode_t loose) QG_CHECKED;

/* The folder in which container engines mount secrets: $QKDGATE_SECRETS, which
 * must be absolute, else /run/secrets. */
const char *qg_keyfile_secrets(void);

/* Whether a file that was opened at `path` may hold a master or private key: as
 * qg_keyfile_open says, but that below qg_keyfile_secrets() it may be readable
 * for one of this process's groups, since that is how an engine gives a file of
 * root's to another user. QG_E_MODE. */
qg_err qg_keyfile_check_secret(const char *path, const struct stat *st, mode_t loose) QG_CHECKED;

/* Opens such a file for reading. QG_E_NOTFOUND, QG_E_MODE, QG_E_IO. */
qg_err qg_keyfile_open_secret(const char *path, mode_t loose, int *out) QG_CHECKED;

/* Makes a file that is not there, mode 0600. QG_E_EXISTS, QG_E_IO. */
qg_err qg_keyfile_create(const char *path, int *out) QG_CHECKED;

/* Reads from the start until the end of the file or until n bytes are there. */
qg_err qg_keyfile_read(int fd, void *buf, size_t n, size_t *got) QG_CHECKED;

/* Writes all n bytes at the offset. QG_E_IO. */
qg_err qg_keyfile_write_at(int fd, const void *buf, size_t n, off_t at) QG_CHECKED;

/* Syncs the folder that holds the file, so that its name is durable. */
qg_err qg_keyfile_sync_folder(const char *path) QG_CHECKED;

/* Puts n bytes in the place of the file, which may be absent: after a crash it
 * holds the old bytes or the new ones. What the old file held is overwritten
 * once the new one is durable. */
qg_err qg_keyfile_replace(const char *path, const void *bytes, size_t n) QG_CHECKED;

#endif
