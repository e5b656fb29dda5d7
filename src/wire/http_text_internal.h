/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_HTTP_TEXT_INTERNAL_H
#define QKDGATE_HTTP_TEXT_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qkdgate/bytes.h"
#include "qkdgate/error.h"

/* Messages of HTTP/1.1 (RFC 9112) with small bodies as frames of a byte stream.
 * Strict: CRLF alone ends a line, no folding, one Content-Length, and never
 * beside Transfer-Encoding, of which chunked is the only one. */

#define QG_HTTP_HEAD_MAX 8192

typedef struct qg_http_head {
	bool response;
	const char *method, *target; /* of a request, not NUL-terminated */
	size_t method_len, target_len;
	unsigned status;             /* of a response */
	bool minor_0;                /* HTTP/1.0 */
	bool close;                  /* the connection ends after the exchange */
	bool has_length, chunked;
	size_t length;
} qg_http_head;

/* The head that n bytes begin with and its size. QG_E_AGAIN: not whole;
 * QG_E_PARSE; QG_E_RANGE: over QG_HTTP_HEAD_MAX, or a length beyond a frame's. */
qg_err qg_http_head_get(const uint8_t *p, size_t n, qg_http_head *head, size_t *size) QG_CHECKED;

/* The length of head and body together; may be more than n. As above. */
qg_err qg_http_text_frame(const uint8_t *p, size_t n, size_t *total) QG_CHECKED;

/* The body of a whole message, in one piece: chunks are joined in place. */
qg_err qg_http_body_get(uint8_t *frame, size_t n, const qg_http_head *head, size_t head_size, uint8_t **body,
			size_t *body_len) QG_CHECKED;

#endif
