/* SPDX-License-Identifier: Apache-2.0 */
/* The ceiling: what libmicrohttpd and GnuTLS can do at best with a fixed body. One daemon in
 * epoll mode without its internal thread, driven by one thread of ours; client certificates
 * required and verified, session tickets; nothing of the gateway is in it but its TLS settings.
 * In a process with one thread only, the C library and the kernel leave out locks that no
 * gateway can do without: `single` shows how much that is.
 * GnuTLS does not verify again at resumption, so a server that must not serve a revoked client
 * has to: `checking` does, at the first request of a resumed session.
 * usage: ceiling worker|single|checking PORT CERTIFICATE KEY CA CRL */
#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <microhttpd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BODY_BYTES 250
#define POOL_BYTES ((size_t)4 * 1024)
#define RUNS_IN_A_ROW 3
#define IDLE_S 60u
#define LONGEST_WAIT_MS 500

/* As the gateway has it for TLS 1.3. */
#define PRIORITY \
	"NORMAL:%SERVER_PRECEDENCE:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-256-GCM:+CHACHA20-POLY1305:+AES-128-GCM:-MAC-ALL:+AEAD:" \
	"-KX-ALL:+ECDHE-ECDSA:+ECDHE-RSA:" \
	"-GROUP-ALL:+GROUP-X25519:+GROUP-SECP256R1:+GROUP-SECP384R1:+GROUP-X448:+GROUP-SECP521R1:" \
	"-SIGN-RSA-SHA1:-SIGN-ECDSA-SHA1"

static struct {
	gnutls_certificate_credentials_t cred;
	gnutls_priority_t priority;
	gnutls_datum_t ticket_key;
	struct MHD_Response *response;
	bool checking;
	volatile sig_atomic_t stop;
} ceiling;

static void
on_signal(int number)
{
	(void)number;
	ceiling.stop = 1;
}

/* --- TLS ------------------------------------------------------------------- */

static int
verify_client(gnutls_session_t session)
{
	char oid[] = GNUTLS_KP_TLS_WWW_CLIENT;
	gnutls_typed_vdata_st want = {.type = GNUTLS_DT_KEY_PURPOSE_OID, .data = (unsigned char *)oid};
	unsigned status = 0;
	int rc = gnutls_certificate_verify_peers(session, &want, 1, &status);
	return rc == 0 && status == 0 ? 0 : GNUTLS_E_CERTIFICATE_ERROR;
}

static bool
load(char **files)
{
	if (gnutls_certificate_allocate_credentials(&ceiling.cred) != 0 ||
	    gnutls_priority_init(&ceiling.priority, PRIORITY, NULL) != 0 ||
	    gnutls_session_ticket_key_generate(&ceiling.ticket_key) != 0)
		return false;
	gnutls_certificate_set_verify_function(ceiling.cred, verify_client);
	return gnutls_certificate_set_x509_key_file(ceiling.cred, files[0], files[1], GNUTLS_X509_FMT_PEM) >= 0 &&
	       gnutls_certificate_set_x509_trust_file(ceiling.cred, files[2], GNUTLS_X509_FMT_PEM) > 0 &&
	       gnutls_certificate_set_x509_crl_file(ceiling.cred, files[3], GNUTLS_X509_FMT_PEM) > 0;
}

static void
on_connection(void *cls, struct MHD_Connection *mhd, void **context, enum MHD_ConnectionNotificationCode code)
{
	static char unchecked;
	(void)cls;
	*context = ceiling.checking && code == MHD_CONNECTION_NOTIFY_STARTED ? &unchecked : NULL;
	if (code != MHD_CONNECTION_NOTIFY_STARTED)
		return;
	gnutls_session_t session = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION)->tls_session;
	if (gnutls_priority_set(session, ceiling.priority) != 0 ||
	    gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, ceiling.cred) != 0 ||
	    gnutls_session_ticket_enable_server(session, &ceiling.ticket_key) != 0)
		abort();
	gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUIRE);
}

/* libmicrohttpd wants credentials of its own; on_connection sets ours. */
static int
no_certificate(gnutls_session_t session, const gnutls_datum_t *ca, int n_ca, const gnutls_pk_algorithm_t *algs,
	       int n_algs, gnutls_pcert_st **certs, unsigned *n_certs, gnutls_privkey_t *key)
{
	(void)session, (void)ca, (void)n_ca, (void)algs, (void)n_algs, (void)certs, (void)n_certs, (void)key;
	return -1;
}

/* --- HTTP ------------------------------------------------------------------ */

/* Whether the client of a resumed session is still to be served. */
static bool
check_once(struct MHD_Connection *mhd)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	if (info->socket_context == NULL)
		return true;
	gnutls_session_t session = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION)->tls_session;
	return !gnutls_session_is_resumed(session) || verify_client(session) == 0;
}

/* A response queued on the first call would end the connection. */
static enum MHD_Result
on_access(void *cls, struct MHD_Connection *mhd, const char *url, const char *method, const char *version,
	  const char *data, size_t *size, void **con_cls)
{
	static char seen;
	(void)cls, (void)url, (void)method, (void)version, (void)data;
	if (*con_cls == NULL) {
		*con_cls = &seen;
		return !ceiling.checking || check_once(mhd) ? MHD_YES : MHD_NO;
	}
	*size = 0;
	return MHD_queue_response(mhd, MHD_HTTP_OK, ceiling.response);
}

static bool
make_response(void)
{
	static char body[BODY_BYTES];
	memset(body, 'x', sizeof body);
	ceiling.response = MHD_create_response_from_buffer(sizeof body, body, MHD_RESPMEM_PERSISTENT);
	return ceiling.response != NULL && MHD_add_response_header(ceiling.response, MHD_HTTP_HEADER_CONTENT_TYPE,
								    "application/json") == MHD_YES;
}

static struct MHD_Daemon *
start(unsigned port)
{
	/* clang-format off */
	return MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_TLS, (uint16_t)port, NULL, NULL, on_access, NULL,
		MHD_OPTION_HTTPS_CERT_CALLBACK, no_certificate,
		MHD_OPTION_NOTIFY_CONNECTION, on_connection, NULL,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, POOL_BYTES,
		MHD_OPTION_CONNECTION_LIMIT, 4096u,
		MHD_OPTION_CONNECTION_TIMEOUT, IDLE_S,
		MHD_OPTION_END);
	/* clang-format on */
}

static void *
serve(void *arg)
{
	struct MHD_Daemon *daemon = arg;
	struct pollfd p = {.fd = MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd, .events = POLLIN};
	int wait_ms = 0;
	while (!ceiling.stop) {
		(void)poll(&p, 1, wait_ms);
		wait_ms = 1;
		for (int i = 0; i < RUNS_IN_A_ROW; i++) {
			MHD_UNSIGNED_LONG_LONG ms = LONGEST_WAIT_MS;
			MHD_run(daemon);
			if (MHD_get_timeout(daemon, &ms) != MHD_YES || ms != 0) {
				wait_ms = ms < LONGEST_WAIT_MS ? (int)ms : LONGEST_WAIT_MS;
				break;
			}
		}
	}
	return NULL;
}

static bool
serve_until_told(struct MHD_Daemon *daemon, bool single)
{
	pthread_t worker;
	if (single) {
		serve(daemon);
		return true;
	}
	if (pthread_create(&worker, NULL, serve, daemon) != 0)
		return false;
	return pthread_join(worker, NULL) == 0;
}

int
main(int argc, char **argv)
{
	char *end = NULL;
	unsigned long port = argc == 7 ? strtoul(argv[2], &end, 10) : 0;
	bool single = argc > 1 && strcmp(argv[1], "single") == 0;
	ceiling.checking = argc > 1 && strcmp(argv[1], "checking") == 0;
	if (port == 0 || port > 65535 || *end != '\0' ||
	    (!single && !ceiling.checking && strcmp(argv[1], "worker") != 0)) {
		fputs("usage: ceiling worker|single|checking PORT CERTIFICATE KEY CA CRL\n", stderr);
		return 2;
	}
	struct sigaction stop = {.sa_handler = on_signal};
	sigaction(SIGTERM, &stop, NULL);
	sigaction(SIGINT, &stop, NULL);
	signal(SIGPIPE, SIG_IGN);
	struct MHD_Daemon *daemon = load(argv + 3) && make_response() ? start((unsigned)port) : NULL;
	if (daemon == NULL) {
		fputs("ceiling: cannot start\n", stderr);
		return 1;
	}
	fputs("event=ready\n", stderr);
	bool ok = serve_until_told(daemon, single);
	MHD_stop_daemon(daemon);
	return ok ? 0 : 1;
}
