/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_ENCODE_H
#define QKDGATE_ENCODE_H

#include <stddef.h>
#include <stdint.h>

#include "qkdgate/error.h"

/* Base64 (RFC 4648, with padding) and lower-case hex, in constant time for
 * the data, so fit for key bytes. Outputs are not NUL-terminated. */

#define QG_BASE64_LEN(n) ((((n) + 2) / 3) * 4)

/* Writes exactly QG_BASE64_LEN(n) characters to out. */
void qg_base64_encode(const uint8_t *in, size_t n, char *out);

/* Decodes strictly (padding needed, no white space). QG_E_PARSE, or QG_E_RANGE
 * when the result is larger than room. */
qg_err qg_base64_decode(const char *in, size_t n, uint8_t *out, size_t room, size_t *out_len) QG_CHECKED;

/* Writes exactly 2 * n characters to out. */
void qg_hex_encode(const uint8_t *in, size_t n, char *out);

/* Decodes exactly 2 * n characters. QG_E_PARSE. */
qg_err qg_hex_decode(const char *in, size_t n_chars, uint8_t *out, size_t n) QG_CHECKED;

/* Bytes of the character that the NUL-terminated text begins with (RFC 3629): 0
 * when it is none of UTF-8, or its end. */
size_t qg_utf8_len(const char *text);

#endif
