/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_ERROR_H
#define QKDGATE_ERROR_H

/* The one error dialect of the project. A function that can fail returns a
 * qg_err, is QG_CHECKED, and writes its out-parameters only on QG_OK. Errors
 * become HTTP statuses in one file per API, never elsewhere. */

#define QG_CHECKED __attribute__((warn_unused_result))
#define QG_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))

typedef enum qg_err {
	QG_OK = 0,
	QG_E_NOMEM,       /* memory could not be had */
	QG_E_INVAL,       /* an argument or a member is not allowed */
	QG_E_RANGE,       /* a number or size is outside its limits */
	QG_E_PARSE,       /* bytes that do not have the form they should */
	QG_E_IO,          /* reading or writing failed */
	QG_E_TIMEOUT,     /* the time allowed ran out */
	QG_E_AGAIN,       /* not now: try again later */
	QG_E_NOTFOUND,    /* no such thing */
	QG_E_EXISTS,      /* there already */
	QG_E_DENIED,      /* the caller may not */
	QG_E_AUTH,        /* a MAC, tag or certificate does not verify */
	QG_E_FULL,        /* no room for more */
	QG_E_EMPTY,       /* not enough key */
	QG_E_STATE,       /* not in a state that allows it */
	QG_E_CLOSED,      /* the other side closed, or we are stopping */
	QG_E_PROTO,       /* the peer broke the protocol */
	QG_E_CORRUPT,     /* stored data is damaged */
	QG_E_UNSUPPORTED, /* known, but not offered here */
	QG_E_CONSUMED,    /* delivered before */
	QG_E_EXPIRED,     /* its time has passed */
	QG_E_MISMATCH,    /* the two ends do not hold the same */
	QG_E_LIMIT,       /* a rate or quota is used up */
	QG_E_MODE,        /* a secret file's owner or mode is too loose */
	QG_E_ROLLBACK,    /* the store is older than it should be */
	QG_E_UNKNOWN,     /* it may or may not have happened: counts as happened */
	QG_E_COUNT
} qg_err;

/* A short lower-case text without internal detail; never NULL. Any thread. */
const char *qg_err_text(qg_err err);

#endif
