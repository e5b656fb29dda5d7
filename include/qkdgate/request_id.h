/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_REQUEST_ID_H
#define QKDGATE_REQUEST_ID_H

#include <stdbool.h>

/* The ID of a request, the same in all that is done and logged for it, here and at
 * other nodes: it comes and goes in the header X-Request-ID, and the thread that
 * works on a request carries it. It names nothing and proves nothing: whoever
 * asks may choose it. */

#define QG_REQUEST_ID_HEADER "X-Request-ID"
#define QG_REQUEST_ID_MAX 64 /* characters: letters, digits, '.', '_', '-' */

typedef struct qg_request_id {
	bool given;                       /* chosen by who asks, not made here */
	char text[QG_REQUEST_ID_MAX + 1]; /* "": none */
} qg_request_id;

/* Takes what a header says where it is 1 to QG_REQUEST_ID_MAX of the characters
 * above, else makes a new one; NULL: there was no header. */
void qg_request_id_take(qg_request_id *out, const char *value);

/* One that no other request of any gateway has: 32 hexadecimal digits. */
void qg_request_id_make(qg_request_id *out);

/* What this thread does from now on is done for that request (NULL: for none),
 * which stays where it is until the thread is told otherwise. Returns what was
 * before, to be put back. */
const qg_request_id *qg_request_id_enter(const qg_request_id *id);

/* The thread's, or a new one where it works on none. */
qg_request_id qg_request_id_now_or_new(void);

/* For what this thread works now; one without text where that is no request. */
qg_request_id qg_request_id_now(void);

#endif
