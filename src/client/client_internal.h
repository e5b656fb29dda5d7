/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_CLIENT_INTERNAL_H
#define QKDGATE_CLIENT_INTERNAL_H

#include "qkdgate/client.h"
#include "qkdgate/tls.h"

/* Copies the names into one block that begins at *store, to be freed. */
qg_err qg_client_files_copy(const qg_client_files *from, char **store, qg_tls_files *out) QG_CHECKED;

/* Before anything secret is made. Any thread, any number of times. */
qg_err qg_client_set_up(void) QG_CHECKED;

/* A key container (table 11) as n keys; the order of ids, where there are any,
 * must be its own. QG_E_PROTO, QG_E_NOMEM. */
qg_err qg_client_keys_read(const char *body, size_t len, const char *const *ids, size_t n,
			   qg_client_keys **out) QG_CHECKED;
/* A Status (table 9). QG_E_PROTO. */
qg_err qg_client_status_read(const char *body, size_t len, qg_client_status *out) QG_CHECKED;
/* The message of an Error (table 13), made printable; "" without one. */
void qg_client_error_read(const char *body, size_t len, char *out, size_t room);

#endif
