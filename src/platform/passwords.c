/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/passwords.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "keyfile_internal.h"
#include "qkdgate/secret.h"
#include "tls_internal.h"

#define FILE_MAX ((size_t)64 * 1024)
#define LOOSE 0177
#define PREFIX "$argon2id$v=19$"
#define READ_ONLY "read_only"

/* What a new hash costs. */
#define OPS 3
#define MEM_BYTES ((size_t)64 * 1024 * 1024)

/* What a line of the file may cost: not so little that it can be tried out, not so much
 * that a sign-in stops the node. */
#define MEM_KIB_LEAST 7168u
#define MEM_KIB_MOST (256u * 1024)
#define OPS_MOST 16u
#define WORK_LEAST (5u * MEM_KIB_LEAST) /* KiB, over all passes */

typedef struct entry {
	qg_account account;
	char hash[crypto_pwhash_STRBYTES];
} entry;

struct qg_passwords {
	size_t n;
	entry at[QG_PASSWORDS_MAX];
};

/* --- names and hashes ------------------------------------------------------------- */

static bool
is_name(const char *name, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (name[i] <= ' ' || name[i] > '~' || strchr(":\"'\\<>&", name[i]) != NULL)
			return false;
	return len > 0 && len <= QG_PASSWORD_NAME_MAX;
}

/* Reads "m=65536" and the character behind it. */
static bool
take_number(const char **at, char name, char behind, unsigned long *out)
{
	char *end = NULL;
	if ((*at)[0] != name || (*at)[1] != '=' || (*at)[2] < '0' || (*at)[2] > '9')
		return false;
	*out = strtoul(*at + 2, &end, 10); /* ULONG_MAX is too much of anything */
	if (*end != behind)
		return false;
	*at = end + 1;
	return true;
}

/* What is wrong with it, or NULL. */
static const char *
hash_trouble(const char *hash)
{
	unsigned long mem = 0, ops = 0, lanes = 0;
	const char *at = hash + strlen(PREFIX);
	if (strncmp(hash, PREFIX, strlen(PREFIX)) != 0 || !take_number(&at, 'm', ',', &mem) ||
	    !take_number(&at, 't', ',', &ops) || !take_number(&at, 'p', '$', &lanes))
		return "has no hash of Argon2id: make it with qkdgatectl hash-password";
	if (mem > MEM_KIB_MOST || ops > OPS_MOST || lanes != 1)
		return "has a hash that costs too much: at most 256 MiB, 16 passes and one lane";
	if (mem < MEM_KIB_LEAST || mem * ops < WORK_LEAST)
		return "has a hash that costs too little: at least 19 MiB with 2 passes, or 7 MiB with 5";
	return NULL;
}

/* --- the file ---------------------------------------------------------------------- */

static const char *
take_line(qg_passwords *p, const char *line, size_t len)
{
	const char *const colon = memchr(line, ':', len);
	const size_t name_len = colon == NULL ? 0 : (size_t)(colon - line);
	if (colon == NULL || !is_name(line, name_len))
		return "does not begin with a name of 1 to 64 printable characters and a colon";
	if (p->n == QG_PASSWORDS_MAX)
		return "is one too many: there are at most 256 accounts";
	entry *const e = &p->at[p->n];
	memcpy(e->account.name, line, name_len);
	for (size_t i = 0; i < p->n; i++)
		if (strcmp(p->at[i].account.name, e->account.name) == 0)
			return "names an account that is there already";
	const char *const hash = colon + 1;
	const char *const more = memchr(hash, ':', len - name_len - 1);
	const size_t hash_len = (more != NULL ? (size_t)(more - line) : len) - name_len - 1;
	const size_t more_len = more != NULL ? len - (size_t)(more + 1 - line) : 0;
	if (hash_len >= sizeof e->hash)
		return "has a hash that is too long";
	memcpy(e->hash, hash, hash_len);
	e->account.read_only = more != NULL;
	if (more != NULL && (more_len != strlen(READ_ONLY) || memcmp(more + 1, READ_ONLY, more_len) != 0))
		return "says something else than read_only after its hash";
	crypto_generichash(e->account.mark, sizeof e->account.mark, (const unsigned char *)line, len, NULL, 0);
	p->n++;
	return hash_trouble(e->hash);
}

static qg_err
take_text(qg_passwords *p, const char *path, const char *text, size_t len, char *why, size_t why_room)
{
	size_t at = 0;
	for (unsigned number = 1; at < len; number++) {
		const char *const line = text + at;
		const char *const end = memchr(line, '\n', len - at);
		size_t n = end != NULL ? (size_t)(end - line) : len - at;
		at += n + 1;
		if (n > 0 && line[n - 1] == '\r')
			n--;
		const char *const trouble = n == 0 || line[0] == '#' ? NULL
					    : memchr(line, '\0', n) != NULL ? "holds a NUL"
									    : take_line(p, line, n);
		if (trouble == NULL)
			continue;
		qg_tls_say(why, why_room, "%s line %u %s", path, number, trouble);
		return QG_E_PARSE;
	}
	if (p->n > 0)
		return QG_OK;
	qg_tls_say(why, why_room, "%s holds no account", path);
	return QG_E_PARSE;
}

static qg_err
read_file(const char *path, qg_secret *text, char *why, size_t why_room)
{
	QG_FD_AUTO fd = -1;
	qg_err err = qg_keyfile_open_secret(path, LOOSE, &fd);
	if (err == QG_OK)
		err = qg_keyfile_read(fd, text->data, FILE_MAX + 1, &text->len);
	if (err == QG_E_NOTFOUND)
		err = QG_E_IO;
	if (err == QG_OK && text->len > FILE_MAX) {
		qg_tls_say(why, why_room, "%s is larger than 64 KiB", path);
		return QG_E_PARSE;
	}
	if (err == QG_E_MODE)
		qg_tls_say(why, why_room,
			   "%s must be a regular file of mode 0600 or 0400 that belongs to root or to the user who runs "
			   "qkdgate", path);
	else if (err != QG_OK)
		qg_tls_say(why, why_room, "%s is not there or cannot be read", path);
	return err;
}

qg_err
qg_passwords_load(const char *path, qg_passwords **out, char *why, size_t why_room)
{
	QG_SECRET_AUTO *text = NULL;
	qg_err err = qg_secret_new(FILE_MAX + 1, &text);
	if (err == QG_OK)
		err = read_file(path, text, why, why_room);
	if (err != QG_OK)
		return err;
	qg_passwords *p = calloc(1, sizeof *p);
	if (p == NULL)
		return QG_E_NOMEM;
	err = take_text(p, path, (const char *)text->data, text->len, why, why_room);
	if (err == QG_OK && out != NULL) {
		*out = p;
		p = NULL;
	}
	qg_passwords_free(&p);
	return err;
}

void
qg_passwords_free(qg_passwords **p)
{
	if (p == NULL || *p == NULL)
		return;
	qg_wipe(*p, sizeof **p);
	free(*p);
	*p = NULL;
}

/* --- asking --------------------------------------------------------------------------- */

static const entry *
find(const qg_passwords *p, const char *name)
{
	for (size_t i = 0; i < p->n; i++)
		if (strcmp(p->at[i].account.name, name) == 0)
			return &p->at[i];
	return NULL;
}

/* Who is not there is compared with somebody who is, so that the time does not tell. */
qg_err
qg_passwords_verify(const qg_passwords *p, const char *name, const char *password, size_t len, qg_account *out)
{
	const entry *const e = find(p, name);
	const entry *const with = e != NULL ? e : &p->at[0];
	errno = 0;
	if (crypto_pwhash_str_verify(with->hash, password, len) != 0)
		return errno == ENOMEM ? QG_E_NOMEM : QG_E_AUTH;
	if (e == NULL)
		return QG_E_AUTH;
	*out = e->account;
	return QG_OK;
}

bool
qg_passwords_knows(const qg_passwords *p, const qg_account *account)
{
	const entry *const e = find(p, account->name);
	return e != NULL && memcmp(e->account.mark, account->mark, sizeof account->mark) == 0;
}

qg_err
qg_passwords_line(const char *name, const char *password, size_t len, bool read_only,
		  char line[QG_PASSWORD_LINE_ROOM])
{
	char hash[crypto_pwhash_STRBYTES];
	if (!is_name(name, strnlen(name, QG_PASSWORD_NAME_MAX + 1)) || name[0] == '#')
		return QG_E_INVAL;
	if (len < QG_PASSWORD_MIN || len > QG_PASSWORD_MAX)
		return QG_E_RANGE;
	if (crypto_pwhash_str(hash, password, len, OPS, MEM_BYTES) != 0)
		return QG_E_NOMEM;
	const int n = snprintf(line, QG_PASSWORD_LINE_ROOM, "%s:%s%s", name, hash, read_only ? ":" READ_ONLY : "");
	return n > 0 && n < QG_PASSWORD_LINE_ROOM ? QG_OK : QG_E_RANGE;
}
