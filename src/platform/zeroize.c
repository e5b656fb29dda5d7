/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/zeroize.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "keyfile_internal.h"
#include "qkdgate/secret.h"

bool
qg_zeroize_file_says(const char *path)
{
	char first = '\0';
	QG_FD_AUTO fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return errno != ENOENT && errno != ENOTDIR;
	return read(fd, &first, 1) != 1 || first != '0';
}

/* Random bytes, so that a disk that compresses or looks for equal blocks writes
 * them all the same. */
static qg_err
overwrite(int fd, off_t size)
{
	unsigned char block[4096];
	qg_random(block, sizeof block);
	for (off_t at = 0; at < size; at += (off_t)sizeof block) {
		const off_t left = size - at;
		const size_t n = left < (off_t)sizeof block ? (size_t)left : sizeof block;
		if (qg_keyfile_write_at(fd, block, n, at) != QG_OK)
			return QG_E_IO;
	}
	return fdatasync(fd) == 0 ? QG_OK : QG_E_IO;
}

qg_err
qg_zeroize_destroy(const char *path)
{
	struct stat st;
	QG_FD_AUTO fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
	if (fd < 0 && errno == EACCES && chmod(path, 0600) == 0) /* a master key of mode 0400 */
		fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
	if (fd < 0 && errno == ENOENT)
		return QG_OK;
	qg_err err = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? overwrite(fd, st.st_size) : QG_E_IO;
	if (unlink(path) != 0 || qg_keyfile_sync_folder(path) != QG_OK)
		err = QG_E_IO;
	return err;
}
