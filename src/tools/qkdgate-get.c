/* SPDX-License-Identifier: Apache-2.0 */
/* Keys for scripts: gets them over ETSI GS QKD 014 and writes them in the form
 * that another program takes. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "qkdgate-get/get_internal.h"
#include "qkdgate/secret.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_DENIED = 3, EXIT_NO_KEY = 4, EXIT_UNREACHED = 5 };

static int
exit_of(qg_err err)
{
	switch (err) {
	case QG_OK: return EXIT_DONE;
	case QG_E_DENIED: return EXIT_DENIED;
	case QG_E_EMPTY: return EXIT_NO_KEY;
	case QG_E_IO: case QG_E_TIMEOUT: case QG_E_CLOSED: case QG_E_AUTH: return EXIT_UNREACHED;
	default: return EXIT_FAILED;
	}
}

/* --- writing ------------------------------------------------------------------------ */

static bool
write_all(int fd, const uint8_t *p, size_t n)
{
	while (n > 0) {
		ssize_t done = write(fd, p, n);
		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return false;
		p += done;
		n -= (size_t)done;
	}
	return true;
}

/* Into a new file beside the wanted one, which it then becomes. */
static bool
write_file(const char *path, const qg_secret *text)
{
	char name[4096];
	int n = snprintf(name, sizeof name, "%s.new-%ld", path, (long)getpid());
	if (n < 0 || (size_t)n >= sizeof name) {
		errno = ENAMETOOLONG;
		return false;
	}
	int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return false;
	bool ok = write_all(fd, text->data, text->len) && fsync(fd) == 0;
	ok = close(fd) == 0 && ok && rename(name, path) == 0;
	if (!ok) {
		int why = errno;
		unlink(name);
		errno = why;
	}
	return ok;
}

static qg_err
format_keys(const get_options *o, const qg_client_keys *keys, qg_secret **out)
{
	qg_err err = qg_secret_new(keys->n * QG_GET_TEXT_MAX, out);
	for (size_t i = 0; err == QG_OK && i < keys->n; i++) {
		if (keys->key[i].len > QG_GET_KEY_MAX)
			return QG_E_RANGE;
		if (o->format->size_bits != 0 && keys->key[i].len * 8 != o->format->size_bits)
			return QG_E_RANGE;
		(*out)->len += o->format->write(&keys->key[i], (char *)(*out)->data + (*out)->len);
	}
	return err;
}

static int
write_keys(const get_options *o, const qg_client_keys *keys)
{
	QG_SECRET_AUTO *text = NULL;
	qg_err err = format_keys(o, keys, &text);
	if (err != QG_OK) {
		fprintf(stderr, "qkdgate-get: the key does not fit the format %s\n", o->format->name);
		return EXIT_FAILED;
	}
	bool ok = o->output != NULL ? write_file(o->output, text) : write_all(STDOUT_FILENO, text->data, text->len);
	if (!ok) {
		fprintf(stderr, "qkdgate-get: %s: %s\n", o->output != NULL ? o->output : "standard output",
			strerror(errno));
		return EXIT_FAILED;
	}
	for (size_t i = 0; i < keys->n; i++)
		fprintf(o->output != NULL ? stdout : stderr, "%s\n", keys->key[i].id);
	return EXIT_DONE;
}

/* --- asking --------------------------------------------------------------------------- */

static qg_err
get_keys(const get_options *o, qg_client *c, qg_client_keys **keys)
{
	if (o->master != NULL)
		return qg_client_dec_keys(c, o->master, o->ids, o->n_ids, keys);
	time_t end = time(NULL) + (time_t)o->wait_s;
	for (;;) {
		qg_err err = qg_client_enc_keys(c, o->slave, o->number, o->size_bits, keys);
		if (err != QG_E_EMPTY || time(NULL) >= end)
			return err;
		sleep(1);
	}
}

static qg_err
show_status(const get_options *o, qg_client *c)
{
	qg_client_status st;
	qg_err err = qg_client_get_status(c, o->slave, &st);
	if (err == QG_OK)
		printf("stored_key_count %" PRIu64 "\nmax_key_count %" PRIu64 "\nkey_size %" PRIu64
		       "\nmin_key_size %" PRIu64 "\nmax_key_size %" PRIu64 "\nmax_key_per_request %" PRIu64 "\n",
		       st.stored_key_count, st.max_key_count, st.key_size_bits, st.min_key_size_bits,
		       st.max_key_size_bits, st.max_key_per_request);
	return err;
}

static int
run(const get_options *o)
{
	char why[512] = "";
	qg_client *c = NULL;
	qg_client_keys *keys = NULL;
	qg_err err = qg_client_open(o->url, &o->files, o->timeout_ms, &c, why, sizeof why);
	if (err != QG_OK) {
		fprintf(stderr, "qkdgate-get: %s\n", why[0] != '\0' ? why : qg_err_text(err));
		return EXIT_FAILED;
	}
	err = o->status ? show_status(o, c) : get_keys(o, c, &keys);
	int rc = exit_of(err);
	if (err != QG_OK)
		fprintf(stderr, "qkdgate-get: %s\n", qg_client_why(c)[0] != '\0' ? qg_client_why(c) : qg_err_text(err));
	else if (!o->status)
		rc = write_keys(o, keys);
	qg_client_keys_free(&keys);
	qg_client_close(&c);
	return rc;
}

int
main(int argc, char **argv)
{
	get_options o;
	struct rlimit none = {0, 0};
	if (setrlimit(RLIMIT_CORE, &none) != 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
		return EXIT_FAILED;
	get_parsed parsed = get_parse(argc, argv, &o);
	int rc = EXIT_DONE;
	if (parsed == GET_HELP)
		get_usage();
	else if (parsed == GET_WRONG)
		rc = EXIT_USAGE;
	else
		rc = run(&o);
	free(o.ids);
	return rc;
}
