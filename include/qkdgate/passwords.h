/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_PASSWORDS_H
#define QKDGATE_PASSWORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qkdgate/error.h"

/* Administrators who sign in with a password: a file with a line NAME:HASH or
 * NAME:HASH:read_only for each, where HASH is what libsodium makes of the password with
 * Argon2id. Empty lines and those that begin with # say nothing. One that was loaded is
 * never changed. */

typedef struct qg_passwords qg_passwords;

#define QG_PASSWORDS_MAX 256     /* accounts */
#define QG_PASSWORD_NAME_MAX 64  /* printable ASCII but blank, colon, quote and backslash */
#define QG_PASSWORD_MIN 8        /* bytes of one that is set; one that is asked for may have fewer */
#define QG_PASSWORD_MAX 1024
#define QG_PASSWORD_LINE_ROOM 256

/* Who signed in. */
typedef struct qg_account {
	char name[QG_PASSWORD_NAME_MAX + 1];
	bool read_only;
	uint8_t mark[16]; /* of its line: another one after every change of it */
} qg_account;

/* Reads the file, whose mode must be 0600 or 0400; with a NULL for `out` it is only
 * checked. `why` names the line and what is wrong, never the hash. QG_E_IO, QG_E_MODE,
 * QG_E_PARSE, QG_E_NOMEM. */
qg_err qg_passwords_load(const char *path, qg_passwords **out, char *why, size_t why_room) QG_CHECKED;
void qg_passwords_free(qg_passwords **p);

/* Whether this is the name's password. Takes some 100 ms and 64 MiB on purpose, for a
 * name that is not there as well. QG_E_AUTH; QG_E_NOMEM. Any thread. */
qg_err qg_passwords_verify(const qg_passwords *p, const char *name, const char *password, size_t len,
			   qg_account *out) QG_CHECKED;

/* Whether the account is there, with the line that it signed in under. */
bool qg_passwords_knows(const qg_passwords *p, const qg_account *account);

/* Makes a line for the file, without its end. QG_E_INVAL: no good name; QG_E_RANGE: a
 * password that is too short or too long; QG_E_NOMEM. */
qg_err qg_passwords_line(const char *name, const char *password, size_t len, bool read_only,
			 char line[QG_PASSWORD_LINE_ROOM]) QG_CHECKED;

#endif
