/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_TLS_H
#define QKDGATE_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "qkdgate/error.h"

/* The TLS rules of every listener and of the plain 004 client connections, over GnuTLS. One
 * file owns GnuTLS; outgoing HTTPS takes the same settings through curl. */

typedef enum qg_tls_version { QG_TLS_1_2, QG_TLS_1_3 } qg_tls_version;

/* File names; strings belong to the configuration and outlive their users. */
typedef struct qg_tls_files {
	const char *certificate; /* PEM chain, leaf first */
	const char *key;         /* PEM, mode 0600 or 0400 (else QG_E_MODE) */
	const char *ca;          /* PEM bundle that peers must chain to */
	const char *crl;         /* PEM revocation lists, or NULL */
	qg_tls_version min_version;
} qg_tls_files;

/* What a verified certificate says of its owner. Lists may be empty. */
#define QG_TLS_NAMES_MAX 16
#define QG_TLS_NAME_MAX 256
typedef struct qg_tls_identity {
	char uri[QG_TLS_NAMES_MAX][QG_TLS_NAME_MAX]; /* URI SANs */
	size_t n_uri;
	char dns[QG_TLS_NAMES_MAX][QG_TLS_NAME_MAX]; /* DNS SANs */
	size_t n_dns;
	char cn[QG_TLS_NAME_MAX]; /* subject common name, or "" */
	char fingerprint[65];     /* SHA-256 of the certificate, lower-case hex */
} qg_tls_identity;

/* How the configuration names the certificate of an SAE, neighbour or peer:
 * exactly one member is not NULL. Names with an embedded NUL never match. */
typedef struct qg_tls_match {
	const char *uri;
	const char *dns;
	const char *cn;
	const char *fingerprint; /* 64 hex digits */
} qg_tls_match;

/* Whether the identity bears the name. DNS compares without case, the others
 * byte for byte. Pure. */
bool qg_tls_matches(const qg_tls_match *match, const qg_tls_identity *id);

/* From now on what GnuTLS gives back to the C library where our connections, servers and clients
 * receive, and with their sessions, is wiped: decrypted records, with key in them. For a program,
 * before its first session and thread: a library changes nothing of GnuTLS for those who use it. */
void qg_tls_wipe_received(void);

/* Reads and checks everything the files should hold (readable, mode, key fits
 * certificate, nothing expired, the revocation list neither) and puts a text that names the file and what is
 * wrong into `why` (of why_room bytes). QG_E_IO, QG_E_PARSE, QG_E_MODE,
 * QG_E_EXPIRED, QG_E_MISMATCH. */
qg_err qg_tls_check_files(const qg_tls_files *f, char *why, size_t why_room) QG_CHECKED;

/* What one of the files holds, for operators. */
typedef struct qg_tls_item {
	const char *file;
	const char *what;        /* "certificate", "issuer" (of a chain), "authority", "revocation list" */
	const char *name;        /* whole subject, or the issuer of a list */
	int64_t from_s, until_s; /* Unix time; a list: of its next issue, 0 where it says none */
} qg_tls_item;

/* Calls `each` with what the files hold now; views are valid inside. Private keys
 * are not read. QG_E_IO, QG_E_PARSE, QG_E_NOMEM: not all could be read. */
qg_err qg_tls_describe(const qg_tls_files *f, void (*each)(const qg_tls_item *item, void *ctx), void *ctx) QG_CHECKED;

/* --- client connections of the 004 profiles: a stream of bytes ----------- */

typedef struct qg_conn qg_conn;

/* Connects to host:port. tls NULL: plain TCP. With tls: mutual TLS, the
 * server's certificate must chain to tls->ca, not be revoked and bear
 * server_name (a DNS name or IP address). Waits at most timeout_ms in all.
 * QG_E_IO, QG_E_TIMEOUT, QG_E_AUTH, QG_E_MODE. One thread per connection. */
qg_err qg_conn_open(const char *host, unsigned port, const qg_tls_files *tls, const char *server_name,
		    unsigned timeout_ms, qg_conn **out) QG_CHECKED;

/* Wraps an accepted socket (owned from then on, also on failure) for a server
 * that plays a 004 key manager; tls NULL: plain TCP. Does the handshake. */
qg_err qg_conn_accept(int fd, const qg_tls_files *tls, bool require_client_cert, unsigned timeout_ms,
		      qg_conn **out) QG_CHECKED;

/* Sends all n bytes as one record where they fit one. QG_E_IO, QG_E_TIMEOUT. */
qg_err qg_conn_send(qg_conn *c, const void *p, size_t n, unsigned timeout_ms) QG_CHECKED;

/* Receives exactly n bytes. QG_E_CLOSED when the peer ended before the first
 * byte, QG_E_IO, QG_E_TIMEOUT. */
qg_err qg_conn_recv(qg_conn *c, void *p, size_t n, unsigned timeout_ms) QG_CHECKED;

/* Receives what there is, waiting for the first byte only: 1 to room bytes.
 * After QG_E_TIMEOUT nothing is lost. QG_E_CLOSED, QG_E_IO, QG_E_TIMEOUT. */
qg_err qg_conn_recv_some(qg_conn *c, void *p, size_t room, unsigned timeout_ms, size_t *got) QG_CHECKED;

/* Ends the connection (TLS close-notify, no wait), frees, clears *c. */
void qg_conn_close(qg_conn **c);

/* Makes a recv or send of another thread return QG_E_CLOSED soon. */
void qg_conn_abort(qg_conn *c);

#endif
