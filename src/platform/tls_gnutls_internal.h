/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_TLS_GNUTLS_INTERNAL_H
#define QKDGATE_TLS_GNUTLS_INTERNAL_H

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "tls_internal.h"

/* Between the two files that know GnuTLS: tls_gnutls.c has sessions, contexts
 * and verification, tls_gnutls_files.c what is read out of certificates and
 * loaded from files. */

/* What was loaded from one set of files. Counted: connections outlive a reload. */
struct qg_tls_trust {
	atomic_uint refs;
	gnutls_certificate_credentials_t cred;
	qg_chains *chains; /* NULL for clients */
	bool optional;     /* a client need have no certificate */
	/* Times at which one of the authorities or revocation lists begins or
	 * ceases to be valid: between two of them no verdict changes but by the
	 * chain itself. */
	int64_t *turns;
	size_t n_turns;
};

/* With one share, the caller's. Errors and `why` as of qg_tls_context_new. */
qg_err qg_tls_trust_new(const qg_tls_files *f, qg_tls_role role, char *why, size_t why_room,
			qg_tls_trust **out) QG_CHECKED;

/* The clock that everything is judged by, also inside GnuTLS; out as of time. */
time_t qg_tls_clock_s(time_t *out);

#define QG_CRT_AUTO __attribute__((cleanup(qg_tls_crt_free))) gnutls_x509_crt_t
void qg_tls_crt_free(gnutls_x509_crt_t *crt);

/* QG_E_AUTH, QG_E_NOMEM. */
qg_err qg_tls_crt_import(const gnutls_datum_t *der, gnutls_x509_crt_t *out) QG_CHECKED;
/* Who the certificate is of. QG_E_AUTH, QG_E_NOMEM. */
qg_err qg_tls_crt_identity(gnutls_x509_crt_t crt, qg_tls_identity *out) QG_CHECKED;

#endif
