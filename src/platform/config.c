/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config_internal.h"

/* What qg_config_load hands out; the struct comes first. */
typedef struct owner {
	qg_config config;
	cfg_mem mem;
	char *text; /* of the file */
	size_t len;
} owner;

static qg_err
open_file(cfg_report *r, int *out)
{
	struct stat st;
	const int fd = open(r->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0) {
		qg_cfg_problem_at(r, 1, "file", "cannot be opened: %s", strerror(errno));
		return QG_E_IO;
	}
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
		qg_cfg_problem_at(r, 1, "file", "is not a regular file");
		(void)close(fd);
		return QG_E_IO;
	}
	*out = fd;
	return QG_OK;
}

/* Reads to the end, or until there is more than may be: the size that stat
 * tells may be out of date. */
static ssize_t
read_all(int fd, char *buf, size_t room)
{
	size_t len = 0;
	while (len < room) {
		const ssize_t n = read(fd, buf + len, room - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		len += (size_t)n;
	}
	return (ssize_t)len;
}

qg_err
qg_cfg_read(cfg_report *r, cfg_mem *m, char **text, size_t *len)
{
	int fd = -1;
	const qg_err err = open_file(r, &fd);
	if (err != QG_OK)
		return err;
	char *buf = qg_cfg_resize(m, NULL, QG_CFG_FILE_MAX + 1);
	const ssize_t n = buf == NULL ? 0 : read_all(fd, buf, QG_CFG_FILE_MAX + 1);
	const int read_errno = errno;
	(void)close(fd);
	if (buf == NULL)
		return QG_E_NOMEM;
	if (n < 0) {
		qg_cfg_problem_at(r, 1, "file", "cannot be read: %s", strerror(read_errno));
		return QG_E_IO;
	}
	if ((size_t)n > QG_CFG_FILE_MAX) {
		qg_cfg_problem_at(r, 1, "file", "is too large: give at most %zu bytes", QG_CFG_FILE_MAX);
		return QG_E_PARSE;
	}
	*text = buf;
	*len = (size_t)n;
	return QG_OK;
}

/* Absolute, so that the names hold whatever the daemon's folder becomes. */
static qg_err
folder_of(cfg_mem *m, const char *file, const char **out)
{
	const char *const slash = strrchr(file, '/');
	const size_t len = slash == NULL ? 0 : (size_t)(slash - file);
	const char *folder = NULL;
	if (file[0] == '/') {
		folder = qg_cfg_copy(m, file, len);
	} else {
		char cwd[PATH_MAX];
		if (getcwd(cwd, sizeof cwd) == NULL)
			return QG_E_IO;
		folder = qg_cfg_format(m, "%s%s%.*s", strcmp(cwd, "/") == 0 ? "" : cwd, len == 0 ? "" : "/",
				       (int)len, file);
	}
	if (folder == NULL)
		return QG_E_NOMEM;
	*out = folder;
	return QG_OK;
}

/* The tree of a text without problems, complete. */
static qg_err
make_tree(cfg_report *r, const owner *own, cfg_node **out)
{
	cfg_node *root = NULL;
	cfg_checker c = {.report = r, .mem = r->mem};
	qg_err err = folder_of(r->mem, r->file, &c.folder);
	if (err == QG_OK)
		err = qg_cfg_parse(r, r->mem, own->text, own->len, &root);
	if (err != QG_OK)
		return err;
	qg_cfg_expand(r, root);
	err = qg_cfg_graft(r, root); /* behind the variables: no operator reads the environment */
	if (err != QG_OK)
		return err;
	qg_cfg_check(&c, root);
	qg_cfg_check_rules(r, root);
	if (r->nomem)
		return QG_E_NOMEM;
	if (r->n > 0)
		return QG_E_PARSE;
	*out = root;
	return qg_cfg_complete(r->mem, root);
}

/* The text is kept: entries are added to what is in force, not to what the file holds by then. */
static qg_err
take_text(cfg_report *r, const owner *as, owner *own)
{
	char *text = NULL;
	if (as == NULL) {
		const qg_err err = qg_cfg_read(r, r->mem, &text, &own->len);
		if (err != QG_OK)
			return err;
	} else {
		text = as->text;
		own->len = as->len;
	}
	own->text = qg_cfg_copy(&own->mem, text, own->len);
	return own->text != NULL ? QG_OK : QG_E_NOMEM;
}

static qg_err
load(cfg_report *r, const owner *as, owner *own)
{
	cfg_node *root = NULL;
	qg_err err = take_text(r, as, own);
	if (err == QG_OK)
		err = make_tree(r, own, &root);
	if (err == QG_OK)
		err = qg_cfg_bind(r, root, &own->mem, &own->config);
	if (err != QG_OK)
		return err;
	own->config.n_file_saes = own->config.n_saes - qg_cfg_grafts(r, "saes");
	own->config.n_file_policy = own->config.n_policy - qg_cfg_grafts(r, "policy");
	return QG_OK;
}

qg_err
qg_config_load(const char *file, FILE *report, qg_config **out)
{
	return qg_config_load_with(file, NULL, NULL, 0, report, out);
}

qg_err
qg_config_load_with(const char *file, const qg_config *as, const qg_config_entry *entry, size_t n, FILE *report,
		    qg_config **out)
{
	cfg_mem scratch = {NULL};
	cfg_report r = {.file = file, .mem = &scratch, .added = entry, .n_added = n};
	owner *own = calloc(1, sizeof *own);
	const qg_err err = own == NULL ? QG_E_NOMEM : load(&r, (const owner *)as, own);
	qg_cfg_print_problems(&r, err, report);
	qg_cfg_mem_free(&scratch);
	if (err == QG_OK) {
		*out = &own->config;
		return QG_OK;
	}
	if (own != NULL)
		qg_cfg_mem_free(&own->mem);
	free(own);
	return err;
}

void
qg_config_free(qg_config **c)
{
	if (c == NULL || *c == NULL)
		return;
	owner *const own = (owner *)*c;
	qg_cfg_mem_free(&own->mem);
	free(own);
	*c = NULL;
}
