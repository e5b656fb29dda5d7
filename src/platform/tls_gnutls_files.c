/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates, keys and revocation lists: see tls_gnutls_internal.h. */
#include <gnutls/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "qkdgate/clock.h"
#include "qkdgate/encode.h"
#include "tls_gnutls_internal.h"

#define CHAINS_MAX 16384 /* verified ones that are kept, of 300 bytes or so each */

/* --- names ---------------------------------------------------------------- */

static void
put_name(char names[][QG_TLS_NAME_MAX], size_t *n, const char *text, size_t len)
{
	/* An embedded NUL or a name cut short could pass for another's. */
	if (*n == QG_TLS_NAMES_MAX || len == 0 || len >= QG_TLS_NAME_MAX || memchr(text, '\0', len) != NULL)
		return;
	memcpy(names[*n], text, len);
	names[*n][len] = '\0';
	++*n;
}

/* Want of memory says nothing about a certificate; other errors say that it has no such name. */
static bool
is_of_the_moment(int rc)
{
	return rc == GNUTLS_E_MEMORY_ERROR || rc == GNUTLS_E_INTERNAL_ERROR;
}

static qg_err
read_alt_names(gnutls_x509_crt_t crt, qg_tls_identity *id)
{
	for (unsigned seq = 0; seq < 4 * QG_TLS_NAMES_MAX; seq++) {
		char text[QG_TLS_NAME_MAX + 1];
		size_t len = sizeof text;
		int type = gnutls_x509_crt_get_subject_alt_name(crt, seq, text, &len, NULL);
		if (type == GNUTLS_E_SHORT_MEMORY_BUFFER || type == GNUTLS_E_X509_UNKNOWN_SAN)
			continue;
		if (type < 0)
			return is_of_the_moment(type) ? QG_E_NOMEM : QG_OK;
		if (type == GNUTLS_SAN_URI)
			put_name(id->uri, &id->n_uri, text, len);
		else if (type == GNUTLS_SAN_DNSNAME)
			put_name(id->dns, &id->n_dns, text, len);
	}
	return QG_OK;
}

static qg_err
read_cn(gnutls_x509_crt_t crt, char cn[QG_TLS_NAME_MAX])
{
	char text[QG_TLS_NAME_MAX + 1];
	size_t len = sizeof text;
	/* Two common names: which one is meant nobody can say. */
	size_t none = 0;
	int rc = gnutls_x509_crt_get_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 1, 0, NULL, &none);
	if (rc != GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
		return is_of_the_moment(rc) ? QG_E_NOMEM : QG_OK;
	rc = gnutls_x509_crt_get_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, 0, text, &len);
	if (rc != 0)
		return is_of_the_moment(rc) ? QG_E_NOMEM : QG_OK;
	if (len == 0 || len >= QG_TLS_NAME_MAX || memchr(text, '\0', len) != NULL)
		return QG_OK;
	memcpy(cn, text, len);
	cn[len] = '\0';
	return QG_OK;
}

qg_err
qg_tls_crt_identity(gnutls_x509_crt_t crt, qg_tls_identity *out)
{
	uint8_t digest[32];
	size_t digest_len = sizeof digest;
	if (gnutls_x509_crt_get_fingerprint(crt, GNUTLS_DIG_SHA256, digest, &digest_len) != 0)
		return QG_E_AUTH;
	out->n_uri = out->n_dns = 0;
	out->cn[0] = '\0';
	qg_hex_encode(digest, sizeof digest, out->fingerprint);
	qg_err err = read_alt_names(crt, out);
	return err == QG_OK ? read_cn(crt, out->cn) : err;
}

void
qg_tls_crt_free(gnutls_x509_crt_t *crt)
{
	if (*crt != NULL)
		gnutls_x509_crt_deinit(*crt);
}

qg_err
qg_tls_crt_import(const gnutls_datum_t *der, gnutls_x509_crt_t *out)
{
	if (gnutls_x509_crt_init(out) != 0)
		return QG_E_NOMEM;
	return gnutls_x509_crt_import(*out, der, GNUTLS_X509_FMT_DER) == 0 ? QG_OK : QG_E_AUTH;
}

qg_err
qg_tls_identify_server(qg_chains *known, void *session, qg_tls_identity *out)
{
	unsigned n = 0;
	QG_CRT_AUTO crt = NULL;
	qg_chain_key key;
	const gnutls_datum_t *chain = gnutls_certificate_get_peers(session, &n);
	if (chain == NULL || n == 0)
		return QG_E_AUTH;
	qg_chains_key(known, &(qg_chain_part){.data = chain[0].data, .len = chain[0].size}, 1, &key);
	if (qg_chains_find(known, &key, 0, out))
		return QG_OK;
	qg_err err = qg_tls_crt_import(&chain[0], &crt);
	if (err == QG_OK)
		err = qg_tls_crt_identity(crt, out);
	if (err == QG_OK) /* what it says never changes */
		qg_chains_put(known, &key, INT64_MIN, INT64_MAX, out);
	return err;
}

/* What GnuTLS judges by is the clock that our tests can set. */
time_t
qg_tls_clock_s(time_t *out)
{
	const time_t now = (time_t)(qg_clock_wall_ms() / 1000);
	if (out != NULL)
		*out = now;
	return now;
}

__attribute__((constructor)) static void
use_our_clock(void)
{
	gnutls_global_set_time_function(qg_tls_clock_s);
}

/* --- loading files -------------------------------------------------------- */

static gnutls_datum_t
datum_of(const qg_secret *s)
{
	return (gnutls_datum_t){.data = s->data, .size = (unsigned)s->len}; /* at most 1 MiB */
}

/* A certificate chain of a file. */
typedef struct chain {
	gnutls_x509_crt_t *list;
	unsigned n;
} chain;

static void
chain_free(chain *c)
{
	for (unsigned i = 0; i < c->n; i++)
		gnutls_x509_crt_deinit(c->list[i]);
	gnutls_free(c->list);
}

static void
key_free(gnutls_x509_privkey_t *key)
{
	if (*key != NULL)
		gnutls_x509_privkey_deinit(*key);
}

static qg_err
load_chain(const qg_tls_files *f, char *why, size_t why_room, chain *out)
{
	QG_SECRET_AUTO *pem = NULL;
	qg_err err = qg_tls_read_file(f->certificate, false, why, why_room, &pem);
	if (err != QG_OK)
		return err;
	gnutls_datum_t data = datum_of(pem);
	int rc = gnutls_x509_crt_list_import2(&out->list, &out->n, &data, GNUTLS_X509_FMT_PEM, 0);
	if (rc < 0 || out->n == 0) {
		out->n = 0;
		qg_tls_say(why, why_room, "%s: not a PEM certificate chain", f->certificate);
		return QG_E_PARSE;
	}
	return QG_OK;
}

static qg_err
load_key(const qg_tls_files *f, char *why, size_t why_room, gnutls_x509_privkey_t *out)
{
	QG_SECRET_AUTO *pem = NULL;
	qg_err err = qg_tls_read_file(f->key, true, why, why_room, &pem);
	if (err != QG_OK)
		return err;
	gnutls_datum_t data = datum_of(pem);
	if (gnutls_x509_privkey_init(out) != 0)
		return QG_E_NOMEM;
	if (gnutls_x509_privkey_import2(*out, &data, GNUTLS_X509_FMT_PEM, NULL, 0) != 0) {
		qg_tls_say(why, why_room, "%s: not a PEM private key without a password", f->key);
		return QG_E_PARSE;
	}
	return QG_OK;
}

static qg_err
load_own(gnutls_certificate_credentials_t cred, const qg_tls_files *f, char *why, size_t why_room)
{
	__attribute__((cleanup(chain_free))) chain certs = {0};
	__attribute__((cleanup(key_free))) gnutls_x509_privkey_t key = NULL;
	qg_err err = load_chain(f, why, why_room, &certs);
	if (err == QG_OK)
		err = load_key(f, why, why_room, &key);
	if (err != QG_OK)
		return err;
	int rc = gnutls_certificate_set_x509_key(cred, certs.list, (int)certs.n, key);
	if (rc == GNUTLS_E_CERTIFICATE_KEY_MISMATCH) {
		qg_tls_say(why, why_room, "%s: does not fit the certificate %s", f->key, f->certificate);
		return QG_E_MISMATCH;
	}
	if (rc < 0) {
		qg_tls_say(why, why_room, "%s: not usable: %s", f->certificate, gnutls_strerror(rc));
		return QG_E_PARSE;
	}
	return QG_OK;
}

/* Loads the CA bundle or the revocation lists; both functions give the number
 * of what they found. */
static qg_err
load_list(gnutls_certificate_credentials_t cred, const char *path, const char *what,
	  int (*set)(gnutls_certificate_credentials_t, const gnutls_datum_t *, gnutls_x509_crt_fmt_t), char *why,
	  size_t why_room)
{
	QG_SECRET_AUTO *pem = NULL;
	qg_err err = qg_tls_read_file(path, false, why, why_room, &pem);
	if (err != QG_OK)
		return err;
	gnutls_datum_t data = datum_of(pem);
	if (set(cred, &data, GNUTLS_X509_FMT_PEM) <= 0) {
		qg_tls_say(why, why_room, "%s: no PEM %s in it", path, what);
		return QG_E_PARSE;
	}
	return QG_OK;
}

static qg_err
add_turn(qg_tls_trust *t, int64_t at_s)
{
	int64_t *more = reallocarray(t->turns, t->n_turns + 1, sizeof *more);
	if (more == NULL)
		return QG_E_NOMEM;
	t->turns = more;
	t->turns[t->n_turns++] = at_s;
	return QG_OK;
}

static qg_err
read_authorities(qg_tls_trust *t)
{
	gnutls_x509_trust_list_t list = NULL;
	gnutls_x509_trust_list_iter_t at = NULL;
	gnutls_certificate_get_trust_list(t->cred, &list);
	for (;;) {
		QG_CRT_AUTO ca = NULL;
		const int rc = gnutls_x509_trust_list_iter_get_ca(list, &at, &ca);
		qg_err err = rc == 0 ? QG_OK : QG_E_NOMEM;
		if (rc != 0)
			ca = NULL; /* without memory it is set, and released already */
		if (rc == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
			return QG_OK; /* that was the last one */
		if (err == QG_OK)
			err = add_turn(t, gnutls_x509_crt_get_activation_time(ca));
		if (err == QG_OK)
			err = add_turn(t, gnutls_x509_crt_get_expiration_time(ca));
		if (err != QG_OK) {
			gnutls_x509_trust_list_iter_deinit(at);
			return err;
		}
	}
}

typedef struct crl_list {
	gnutls_x509_crl_t *list;
	unsigned n;
} crl_list;

static void
crl_list_free(crl_list *c)
{
	for (unsigned i = 0; i < c->n; i++)
		gnutls_x509_crl_deinit(c->list[i]);
	gnutls_free(c->list);
}

#define CRL_LIST_AUTO __attribute__((cleanup(crl_list_free))) crl_list

static qg_err
load_crls(const qg_tls_files *f, char *why, size_t why_room, crl_list *out)
{
	QG_SECRET_AUTO *pem = NULL;
	qg_err err = qg_tls_read_file(f->crl, false, why, why_room, &pem);
	if (err != QG_OK)
		return err;
	gnutls_datum_t data = datum_of(pem);
	if (gnutls_x509_crl_list_import2(&out->list, &out->n, &data, GNUTLS_X509_FMT_PEM, 0) < 0) {
		out->n = 0;
		qg_tls_say(why, why_room, "%s: no PEM revocation list in it", f->crl);
		return QG_E_PARSE;
	}
	return QG_OK;
}

static qg_err
read_crls(qg_tls_trust *t, const qg_tls_files *f, char *why, size_t why_room)
{
	CRL_LIST_AUTO crls = {0};
	qg_err err = load_crls(f, why, why_room, &crls);
	for (unsigned i = 0; i < crls.n && err == QG_OK; i++) {
		err = add_turn(t, gnutls_x509_crl_get_this_update(crls.list[i]));
		const time_t next = gnutls_x509_crl_get_next_update(crls.list[i]);
		if (err == QG_OK && next != (time_t)-1)
			err = add_turn(t, next);
	}
	return err;
}

static qg_err
load_all(qg_tls_trust *t, const qg_tls_files *f, char *why, size_t why_room)
{
	qg_err err = load_own(t->cred, f, why, why_room);
	if (err == QG_OK)
		err = load_list(t->cred, f->ca, "certificate", gnutls_certificate_set_x509_trust_mem, why, why_room);
	if (err == QG_OK && f->crl != NULL)
		err = load_list(t->cred, f->crl, "revocation list", gnutls_certificate_set_x509_crl_mem, why,
				why_room);
	if (err == QG_OK && t->chains != NULL)
		err = read_authorities(t);
	if (err == QG_OK && t->chains != NULL && f->crl != NULL)
		err = read_crls(t, f, why, why_room);
	return err;
}

void
qg_tls_trust_put(qg_tls_trust **held)
{
	qg_tls_trust *t = held != NULL ? *held : NULL;
	if (t == NULL)
		return;
	*held = NULL;
	if (atomic_fetch_sub(&t->refs, 1) != 1)
		return;
	if (t->cred != NULL)
		gnutls_certificate_free_credentials(t->cred);
	qg_chains_free(&t->chains);
	free(t->turns);
	free(t);
}

/* Where that is missing within a signature, GnuTLS is in error for good: it refuses every session
 * and signature of the process from then on. Here it only says so. */
qg_err
qg_tls_prepare_thread(void)
{
	static _Thread_local bool prepared;
	uint8_t any;
	if (!prepared)
		prepared = gnutls_rnd(GNUTLS_RND_NONCE, &any, sizeof any) == 0;
	return prepared ? QG_OK : QG_E_NOMEM;
}

qg_err
qg_tls_trust_new(const qg_tls_files *f, qg_tls_role role, char *why, size_t why_room, qg_tls_trust **out)
{
	qg_tls_trust *t = calloc(1, sizeof *t);
	if (t == NULL)
		return QG_E_NOMEM;
	atomic_init(&t->refs, 1);
	qg_err err = qg_tls_prepare_thread();
	if (err == QG_OK && gnutls_certificate_allocate_credentials(&t->cred) != 0)
		err = QG_E_NOMEM;
	if (err == QG_OK && role == QG_TLS_SERVER)
		err = qg_chains_new(CHAINS_MAX, &t->chains);
	if (err != QG_OK)
		qg_tls_say(why, why_room, "TLS cannot be set up");
	else
		err = load_all(t, f, why, why_room);
	if (err != QG_OK) {
		qg_tls_trust_put(&t);
		return err;
	}
	*out = t;
	return QG_OK;
}

static qg_err
check_dates(const qg_tls_files *f, char *why, size_t why_room)
{
	__attribute__((cleanup(chain_free))) chain certs = {0};
	qg_err err = load_chain(f, why, why_room, &certs);
	if (err != QG_OK)
		return err;
	time_t now = qg_tls_clock_s(NULL);
	for (unsigned i = 0; i < certs.n; i++) {
		const char *part = i == 0 ? "certificate" : "authority in the chain";
		if (gnutls_x509_crt_get_expiration_time(certs.list[i]) < now) {
			qg_tls_say(why, why_room, "%s: the %s has expired", f->certificate, part);
			return QG_E_EXPIRED;
		}
		if (gnutls_x509_crt_get_activation_time(certs.list[i]) > now) {
			qg_tls_say(why, why_room, "%s: the %s is not valid yet", f->certificate, part);
			return QG_E_EXPIRED;
		}
	}
	return QG_OK;
}

/* GnuTLS goes on with a list past the date of its next issue, and so takes
 * certificates that have been revoked since. */
static qg_err
check_crl_dates(const qg_tls_files *f, char *why, size_t why_room)
{
	CRL_LIST_AUTO crls = {0};
	qg_err err = load_crls(f, why, why_room, &crls);
	bool late = false;
	time_t now = qg_tls_clock_s(NULL);
	if (err != QG_OK)
		return err; /* was read before: no memory, or another file now */
	for (unsigned i = 0; i < crls.n; i++) {
		time_t next = gnutls_x509_crl_get_next_update(crls.list[i]);
		late = late || (next != (time_t)-1 && next < now);
	}
	if (!late)
		return QG_OK;
	qg_tls_say(why, why_room, "%s: the revocation list has expired", f->crl);
	return QG_E_EXPIRED;
}

qg_err
qg_tls_check_files(const qg_tls_files *f, char *why, size_t why_room)
{
	qg_tls_context *ctx = NULL;
	qg_err err = qg_tls_context_new(f, QG_TLS_CLIENT, why, why_room, &ctx);
	qg_tls_context_free(&ctx);
	if (err == QG_OK)
		err = check_dates(f, why, why_room);
	return err == QG_OK && f->crl != NULL ? check_crl_dates(f, why, why_room) : err;
}

/* --- what the files hold ----------------------------------------------------- */

typedef void describe_fn(const qg_tls_item *item, void *ctx);

static qg_err
describe_certs(const char *file, const char *first, const char *others, describe_fn *each, void *ctx)
{
	QG_SECRET_AUTO *pem = NULL;
	__attribute__((cleanup(chain_free))) chain certs = {0};
	qg_err err = qg_tls_read_file(file, false, NULL, 0, &pem);
	if (err != QG_OK)
		return err;
	gnutls_datum_t data = datum_of(pem);
	if (gnutls_x509_crt_list_import2(&certs.list, &certs.n, &data, GNUTLS_X509_FMT_PEM, 0) < 0) {
		certs.n = 0;
		return QG_E_PARSE;
	}
	for (unsigned i = 0; i < certs.n; i++) {
		char name[512] = "";
		size_t len = sizeof name;
		(void)gnutls_x509_crt_get_dn(certs.list[i], name, &len);
		each(&(qg_tls_item){.file = file,
				    .what = i == 0 ? first : others,
				    .name = name,
				    .from_s = gnutls_x509_crt_get_activation_time(certs.list[i]),
				    .until_s = gnutls_x509_crt_get_expiration_time(certs.list[i])},
		     ctx);
	}
	return QG_OK;
}

static qg_err
describe_lists(const char *file, describe_fn *each, void *ctx)
{
	QG_SECRET_AUTO *pem = NULL;
	gnutls_x509_crl_t *list = NULL;
	unsigned n = 0;
	qg_err err = qg_tls_read_file(file, false, NULL, 0, &pem);
	if (err != QG_OK)
		return err;
	gnutls_datum_t data = datum_of(pem);
	if (gnutls_x509_crl_list_import2(&list, &n, &data, GNUTLS_X509_FMT_PEM, 0) < 0)
		return QG_E_PARSE;
	for (unsigned i = 0; i < n; i++) {
		char name[512] = "";
		size_t len = sizeof name;
		time_t next = gnutls_x509_crl_get_next_update(list[i]);
		(void)gnutls_x509_crl_get_issuer_dn(list[i], name, &len);
		each(&(qg_tls_item){.file = file,
				    .what = "revocation list",
				    .name = name,
				    .from_s = gnutls_x509_crl_get_this_update(list[i]),
				    .until_s = next == (time_t)-1 ? 0 : next},
		     ctx);
		gnutls_x509_crl_deinit(list[i]);
	}
	gnutls_free(list);
	return QG_OK;
}

qg_err
qg_tls_describe(const qg_tls_files *f, describe_fn *each, void *ctx)
{
	qg_err own = describe_certs(f->certificate, "certificate", "issuer", each, ctx);
	qg_err ca = describe_certs(f->ca, "authority", "authority", each, ctx);
	qg_err crl = f->crl != NULL ? describe_lists(f->crl, each, ctx) : QG_OK;
	return own != QG_OK ? own : ca != QG_OK ? ca : crl;
}
