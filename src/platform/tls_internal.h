/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_TLS_INTERNAL_H
#define QKDGATE_TLS_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "qkdgate/error.h"
#include "qkdgate/secret.h"
#include "qkdgate/tls.h"

/* What the platform's other files need of TLS without GnuTLS's header. A
 * session is a gnutls_session_t, as a void pointer like libmicrohttpd's. */

/* --- what GnuTLS gives back (tls_gnutls.c) -------------------------------- */

/* From now on, in a program that called qg_tls_wipe_received, what GnuTLS gives back on this thread
 * is wiped: for threads on which other libraries receive with it. */
void qg_tls_wipe_here(void);
/* The same for a thread all of whose sessions are from qg_tls_adopt, for less. */
void qg_tls_wipe_adopted(void);

/* --- threads (tls_gnutls_files.c) ------------------------------------------- */

/* Before the first use of GnuTLS on a thread: the state of its random numbers, which is the thread's
 * own. Cheap later. QG_E_NOMEM. */
qg_err qg_tls_prepare_thread(void) QG_CHECKED;

/* --- files (tls_files.c) -------------------------------------------------- */

/* Puts a text into why; NULL or no room: nothing. */
void qg_tls_say(char *why, size_t why_room, const char *fmt, ...) QG_PRINTF(3, 4);

/* Reads a whole file of at most 1 MiB into a secret. With `private`, refuses
 * files that group or others can use, or that belong to somebody else than us
 * or root. QG_E_IO, QG_E_MODE, QG_E_RANGE, QG_E_NOMEM. */
qg_err qg_tls_read_file(const char *path, bool private, char *why, size_t why_room,
			qg_secret **out) QG_CHECKED;

typedef enum qg_tls_step {
	QG_TLS_DONE,
	QG_TLS_WANT_READ,  /* call again when the socket is readable */
	QG_TLS_WANT_WRITE, /* call again when the socket is writable */
	QG_TLS_EOF,
	QG_TLS_REFUSED,    /* one side does not accept the other's certificate */
	QG_TLS_FAILED,
} qg_tls_step;

/* --- a set of files, loaded (tls_gnutls.c) -------------------------------- */

typedef enum qg_tls_role { QG_TLS_CLIENT, QG_TLS_SERVER } qg_tls_role;

/* What a session sends, so that one call of the system takes what belongs together.
 * libmicrohttpd writes head and body of an answer as two records: the first is held
 * back for the second. So are the hello of a handshake for what else is in its
 * flight, and tickets for the first answer. One thread. */
typedef struct qg_tls_out {
	int fd;
	bool hold;
	size_t len;
	uint8_t held[2048];
} qg_tls_out;

void qg_tls_out_init(qg_tls_out *o, int fd);
/* The next record waits for the one after it, or for a flush. */
void qg_tls_out_hold(qg_tls_out *o);
/* As writev of the pieces: the bytes of them that were taken, or -1 with errno. */
ssize_t qg_tls_out_push(qg_tls_out *o, const struct iovec *piece, size_t n);
/* Sends what is held; false: some is left. */
bool qg_tls_out_flush(qg_tls_out *o);

/* What a session receives. GnuTLS asks for the five bytes of a record's head and
 * then for the rest: what follows the head is read along with it. One thread. */
typedef struct qg_tls_in {
	int fd;
	qg_tls_out *out; /* of the same session; NULL: none */
	size_t at, len; /* what is read and not given yet */
	uint8_t ahead[1536];
} qg_tls_in;

/* out: what is flushed when there is nothing to read, as the peer waits too then. */
void qg_tls_in_init(qg_tls_in *in, int fd, qg_tls_out *out);
/* As recv; says that there is nothing only when the socket does. */
ssize_t qg_tls_in_pull(qg_tls_in *in, void *p, size_t n);
/* Whether a pull would return at once without the socket. */
static inline bool
qg_tls_in_has(const qg_tls_in *in)
{
	return in->at < in->len;
}

/* Certificate, key, trust, priorities and, for servers, a ticket key and the
 * chains that were verified. Any number of threads. */
typedef struct qg_tls_context qg_tls_context;

/* Errors and `why` as of qg_tls_check_files, without QG_E_EXPIRED. */
qg_err qg_tls_context_new(const qg_tls_files *f, qg_tls_role role, char *why, size_t why_room,
			  qg_tls_context **out) QG_CHECKED;
void qg_tls_context_free(qg_tls_context **ctx); /* after its last session and trust */

/* Takes certificate, key, trust and revocation lists anew for what begins from
 * now on, or changes nothing and fails as qg_tls_context_new. */
qg_err qg_tls_context_reload(qg_tls_context *ctx, const qg_tls_files *f, char *why, size_t why_room) QG_CHECKED;

/* Servers: sessions can be resumed with tickets, whose key is another one after
 * this time; 0: they cannot. Before the first session. Without this call, those
 * that qg_tls_adopt sees can, for 6 hours, and those of qg_tls_session_new not. */
void qg_tls_context_tickets(qg_tls_context *ctx, unsigned key_s);

/* Servers: a client need have no certificate; one that it has must be good. Before
 * the first session. */
void qg_tls_context_optional(qg_tls_context *ctx);

/* The files that a session lives under, as they were when they were loaded. */
typedef struct qg_tls_trust qg_tls_trust;

/* Puts our rules into a server session that another library made and has not
 * begun to use: credentials, priorities, tickets, a client certificate that is
 * required (see qg_tls_context_optional) and verified inside the handshake. *held
 * is the session's trust, to be put after it. What it receives and sends goes through
 * in and out, which stay the caller's and live until the session's last use.
 * QG_E_NOMEM. */
qg_err qg_tls_adopt(qg_tls_context *ctx, void *session, qg_tls_in *in, qg_tls_out *out,
		    qg_tls_trust **held) QG_CHECKED;

/* Who is at the other end, after the handshake, under the files of now: *held
 * may become another one. Resumed sessions are verified again, since time and
 * revocations move on; a chain that was verified under these files is not.
 * QG_E_AUTH. */
qg_err qg_tls_identify(qg_tls_context *ctx, void *session, qg_tls_trust **held, qg_tls_identity *out) QG_CHECKED;

/* Whether nothing was reloaded since. Cheap. */
bool qg_tls_is_current(const qg_tls_context *ctx, const qg_tls_trust *held);
void qg_tls_trust_put(qg_tls_trust **held);

/* What a server session that qg_tls_adopt saw needs to get through its
 * handshake: QG_TLS_DONE, QG_TLS_WANT_READ or QG_TLS_WANT_WRITE. */
qg_tls_step qg_tls_handshake_state(void *session);

/* For MHD_OPTION_HTTPS_CERT_CALLBACK, a gnutls_certificate_retrieve_function2
 * that finds nothing: libmicrohttpd insists on a certificate of its own though
 * qg_tls_adopt replaces it. */
typedef void qg_tls_any_fn(void);
qg_tls_any_fn *qg_tls_no_certificate(void);

/* --- verified chains (tls_chains.c) ---------------------------------------- */

/* What is known to chain to the authorities of one trust, which has one of
 * these of its own. Bounded: the one not used for longest makes room. Any
 * thread. */
typedef struct qg_chains qg_chains;

typedef struct qg_chain_key {
	uint8_t b[32];
} qg_chain_key;

typedef struct qg_chain_part {
	const uint8_t *data;
	size_t len;
} qg_chain_part;

/* For about `most` chains. QG_E_NOMEM. */
qg_err qg_chains_new(size_t most, qg_chains **out) QG_CHECKED;
void qg_chains_free(qg_chains **c);

/* The name of a chain: a keyed hash of its certificates in DER, leaf first. */
void qg_chains_key(const qg_chains *c, const qg_chain_part *parts, size_t n, qg_chain_key *out);

/* Whether the chain was verified and that still holds; then its owner goes to
 * *out (which may be NULL). One that no longer holds is forgotten. */
bool qg_chains_find(qg_chains *c, const qg_chain_key *key, int64_t now_s, qg_tls_identity *out);

/* Notes a chain that was verified, which holds after from_s and before until_s.
 * Without memory it does not. */
void qg_chains_put(qg_chains *c, const qg_chain_key *key, int64_t from_s, int64_t until_s,
		   const qg_tls_identity *id);

/* Who the server at the other end of a client session is; whoever made the
 * session verified it. What its certificate says is kept in `known`, which
 * has single certificates: to read one costs a tenth of a millisecond. QG_E_AUTH. */
qg_err qg_tls_identify_server(qg_chains *known, void *session, qg_tls_identity *out) QG_CHECKED;

/* --- sessions of our own (tls_gnutls.c, for tls_conn.c) ------------------- */

typedef struct qg_tls_session qg_tls_session;

/* On a non-blocking socket, which stays the caller's. peer_name (clients): what
 * the certificate must bear; it must outlive the session. verify_client
 * (servers): require a certificate. */
qg_err qg_tls_session_new(qg_tls_context *ctx, int fd, const char *peer_name, bool verify_client,
			  qg_tls_session **out) QG_CHECKED;
qg_tls_step qg_tls_session_handshake(qg_tls_session *s) QG_CHECKED;
/* After WANT_*, repeat with the same bytes. */
qg_tls_step qg_tls_session_send(qg_tls_session *s, const void *p, size_t n, size_t *sent) QG_CHECKED;
qg_tls_step qg_tls_session_recv(qg_tls_session *s, void *p, size_t n, size_t *got) QG_CHECKED;
/* Who the client is, after the handshake of a server's session that required a
 * certificate: as qg_tls_identify. QG_E_AUTH. */
qg_err qg_tls_session_identify(qg_tls_session *s, qg_tls_identity *out) QG_CHECKED;
/* As qg_tls_is_current. */
bool qg_tls_session_is_current(const qg_tls_session *s);
/* Says close-notify without waiting, frees. */
void qg_tls_session_free(qg_tls_session **s);

#endif
