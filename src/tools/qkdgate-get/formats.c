/* SPDX-License-Identifier: Apache-2.0 */
/* Keys in the forms that other programs take. */
#include "get_internal.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "qkdgate/encode.h"

static size_t
put_text(char *out, const char *text)
{
	size_t n = strlen(text);
	memcpy(out, text, n);
	return n;
}

static size_t
put_hex(const qg_client_key *key, char *out)
{
	qg_hex_encode(key->bytes, key->len, out);
	return 2 * key->len;
}

static size_t
raw(const qg_client_key *key, char *out)
{
	memcpy(out, key->bytes, key->len);
	return key->len;
}

static size_t
hex(const qg_client_key *key, char *out)
{
	size_t n = put_hex(key, out);
	return n + put_text(out + n, "\n");
}

static size_t
base64(const qg_client_key *key, char *out)
{
	size_t n = QG_BASE64_LEN(key->len);
	qg_base64_encode(key->bytes, key->len, out);
	return n + put_text(out + n, "\n");
}

/* IDENTITY:HEX, as in the files of certtool's psktool and gnutls-serv. */
static size_t
psk(const qg_client_key *key, char *out)
{
	size_t n = put_text(out, key->id);
	n += put_text(out + n, ":");
	n += put_hex(key, out + n);
	return n + put_text(out + n, "\n");
}

/* A file of options for openssl s_server and s_client: see qkdgate-get(1). */
static size_t
openssl(const qg_client_key *key, char *out)
{
	size_t n = put_text(out, "-psk_identity ");
	n += put_text(out + n, key->id);
	n += put_text(out + n, " -psk ");
	n += put_hex(key, out + n);
	return n + put_text(out + n, "\n");
}

/* A secrets section of swanctl.conf (RFC 8784). */
static size_t
strongswan(const qg_client_key *key, char *out)
{
	size_t n = put_text(out, "secrets {\n\tppk-");
	n += put_text(out + n, key->id);
	n += put_text(out + n, " {\n\t\tid = ");
	n += put_text(out + n, key->id);
	n += put_text(out + n, "\n\t\tsecret = 0x");
	n += put_hex(key, out + n);
	return n + put_text(out + n, "\n\t}\n}\n");
}

const get_format get_formats[] = {
	{"base64", "base64 (RFC 4648), a line each", 0, true, base64},
	{"hex", "hexadecimal digits, a line each", 0, true, hex},
	{"raw", "the bytes, nothing else; one key", 0, false, raw},
	{"psk", "KEY_ID:HEX, a line each: a PSK file of GnuTLS", 0, true, psk},
	{"openssl", "options for openssl s_server and s_client; one key", 0, false, openssl},
	{"wireguard", "for wg set ... preshared-key FILE; one key of 256 bits", 256, false, base64},
	{"strongswan", "a ppk of swanctl.conf, named by the key ID", 0, true, strongswan},
};
const size_t n_get_formats = sizeof get_formats / sizeof get_formats[0];
