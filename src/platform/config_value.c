/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "config_internal.h"
#include "keyfile_internal.h"
#include "qkdgate/uuid.h"

#define CREDENTIAL "credential:"
#define SECRET "secret:"
#define PEM "-----BEGIN"
#define HTTPS "https://"
#define HOST_MAX 253
#define FINGERPRINT_CHARS 64

static void
set_text(cfg_checker *c, cfg_node *n, const char *text)
{
	if (text == NULL)
		c->report->nomem = true;
	else
		n->text = text;
}

static bool
is_digits(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (s[i] < '0' || s[i] > '9')
			return false;
	return n > 0;
}

/* --- numbers and words ------------------------------------------------------ */

static void
range_text(const cfg_option *o, char *buf, size_t room)
{
	char step[40] = "";
	if (o->step > 0)
		(void)snprintf(step, sizeof step, ", a multiple of %" PRIu64, o->step);
	(void)snprintf(buf, room, "%" PRIu64 " to %" PRIu64 "%s%s%s", o->min, o->max,
		       o->unit == NULL ? "" : " ",
		       o->unit == NULL ? "" : o->unit, step);
}

static void
check_uint(cfg_checker *c, const cfg_option *o, cfg_node *n)
{
	char range[96];
	range_text(o, range, sizeof range);
	const char *const text = n->text;
	const size_t len = strlen(text);
	if (n->quoted || !is_digits(text, len) || (len > 1 && text[0] == '0'))
		qg_cfg_problem(c->report, n, "%s is not a whole number%s: give %s",
			       qg_cfg_show(c->report, text),
			       n->quoted ? " (it is in quotes)" : "", range);
	else if (len > 10 || strtoull(text, NULL, 10) > o->max || strtoull(text, NULL, 10) < o->min)
		qg_cfg_problem(c->report, n, "%s is out of range: give %s", qg_cfg_show(c->report, text),
			       range);
	else if (o->step > 0 && strtoull(text, NULL, 10) % o->step != 0)
		qg_cfg_problem(c->report, n, "%s does not fit: give %s", text, range);
}

static void
check_bool(cfg_checker *c, const cfg_option *o, cfg_node *n)
{
	(void)o;
	if (n->quoted || (strcmp(n->text, "true") != 0 && strcmp(n->text, "false") != 0))
		qg_cfg_problem(c->report, n, "%s is neither true nor false%s",
			       qg_cfg_show(c->report, n->text),
			       n->quoted ? " (it is in quotes)" : "");
}

static void
check_choice(cfg_checker *c, const cfg_option *o, cfg_node *n)
{
	const char *all = "";
	for (const cfg_choice *v = o->choices; v->name != NULL; v++) {
		if (strcmp(v->name, n->text) == 0)
			return;
		all = qg_cfg_format(c->report->mem, "%s%s%s", all, all[0] == '\0' ? "" : ", ", v->name);
		if (all == NULL) {
			c->report->nomem = true;
			return;
		}
	}
	qg_cfg_problem(c->report, n, "%s is none of: %s", qg_cfg_show(c->report, n->text), all);
}

/* --- texts ------------------------------------------------------------------ */

static bool
check_length(cfg_checker *c, const cfg_option *o, cfg_node *n)
{
	const size_t len = strlen(n->text);
	if (len == 0 && o->min > 0)
		qg_cfg_problem(c->report, n, "has no value: give %s", qg_cfg_types[o->type].what);
	else if (len < o->min || len > o->max)
		qg_cfg_problem(c->report, n, "%s has %zu bytes: give %" PRIu64 " to %" PRIu64,
			       qg_cfg_show(c->report, n->text), len, o->min, o->max);
	return !n->bad;
}

static void
check_characters(cfg_checker *c, const cfg_option *o, cfg_node *n, const char *refused)
{
	if (!check_length(c, o, n))
		return;
	for (const char *p = n->text; *p != '\0'; p++) {
		if (*p > ' ' && *p <= '~' && strchr(refused, *p) == NULL)
			continue;
		qg_cfg_problem(c->report, n, "%s holds a character that is not allowed: give %s",
			       qg_cfg_show(c->report, n->text), qg_cfg_types[o->type].what);
		return;
	}
}

static void
check_token(cfg_checker *c, const cfg_option *o, cfg_node *n)
{
	check_characters(c, o, n, "");
}

static void
check_name(cfg_checker *c, const cfg_option *o, cfg_node *n)
{
	check_characters(c, o, n, "\"\\*");
}

static void
check_pattern(cfg_checker *c, const cfg_option *o, cfg_node *n)
{
	check_characters(c, o, n, "\"\\");
}

static void
check_text(cfg_checker *c, const cfg_option *o, cfg_node *n)
{
	if (!check_length(c, o, n))
		return;
	for (const char *p = n->text; *p != '\0'; p++) {
		if ((unsigned char)*p >= ' ' && *p != 0x7f)
			continue;
		qg_cfg_problem(c->report, n, "%s holds a control character", qg_cfg_show(c->report, n->text));
		return;
	}
}

static void
check_path(cfg_checker *c, const cfg_option *o, cfg_node *n)
{
	check_text(c, o, n);
	if (n->bad || n->text[0] == '/')
		return;
	set_text(c, n, qg_cfg_format(c->mem, "%s/%s", c->folder, n->text));
}

static bool
begins(const char *text, const char *with)
{
	return strncmp(text, with, strlen(with)) == 0;
}

/* The key itself must not be here, and if it is, not in the report. What a
 * variable gives is taken for a key unless it is clearly the place of one. */
static bool
is_key_itself(const cfg_node *n)
{
	const char *const text = n->text;
	if (n->raw != NULL && n->raw[0] == '$' && text[0] != '/' && !begins(text, SECRET) &&
	    !begins(text, CREDENTIAL))
		return true;
	return (strlen(text) == 64 && strspn(text, "0123456789abcdefABCDEF") == 64) ||
	       strstr(text, PEM) != NULL;
}

/* NAME of secret:NAME and the like: no way out of the folder. */
static bool
check_place(cfg_checker *c, const cfg_option *o, cfg_node *n, const char *form)
{
	const char *const name = n->text + strlen(form);
	if (name[0] == '\0' || name[0] == '.' || strchr(name, '/') != NULL)
		qg_cfg_problem(c->report, n, "%s has no name: give %sNAME, NAME without \"/\" and no dot in front",
			       qg_cfg_show(c->report, n->text), form);
	else
		check_token(c, o, n);
	return !n->bad;
}

static void
check_secret_path(cfg_checker *c, const cfg_option *o, cfg_node *n)
{
	if (is_key_itself(n))
		qg_cfg_problem(c->report, n, "looks like the key itself: give %s%s", qg_cfg_types[o->type].what,
			       n->raw == NULL ? "" : "; a variable holds /PATH or secret:NAME");
	else if (!begins(n->text, SECRET))
		check_path(c, o, n);
	else if (check_place(c, o, n, SECRET))
		set_text(c, n, qg_cfg_format(c->mem, "%s/%s", qg_keyfile_secrets(), n->text + strlen(SECRET)));
}

static void
check_key_path(cfg_checker *c, const cfg_option *o, cfg_node *n)
{
	if (begins(n->text, CREDENTIAL))
		(void)check_place(c, o, n, CREDENTIAL);
	else
		check_secret_path(c, o, n);
}

static void
check_uuid(cfg_checker *c, const cfg_option *o, cfg_node *n)
{
	qg_uuid uuid;
	(void)o;
	if (qg_uuid_parse(n->text, strlen(n->text), &uuid) != QG_OK)
		qg_cfg_problem(c->report, n,
			       "%s is not a UUID: give 8-4-4-4-12 hex digits",
			       qg_cfg_show(c->report, n->text));
	else if (qg_uuid_is_null(&uuid))
		qg_cfg_problem(c->report, n, "is the null UUID, which means none: leave the option out");
}

static void
check_fingerprint(cfg_checker *c, const cfg_option *o, cfg_node *n)
{
	(void)o;
	if (strlen(n->text) != FINGERPRINT_CHARS ||
	    strspn(n->text, "0123456789abcdefABCDEF") != FINGERPRINT_CHARS) {
		qg_cfg_problem(c->report, n,
			       "%s is not a SHA-256 fingerprint: give 64 hex digits without colons",
			       qg_cfg_show(c->report, n->text));
		return;
	}
	char *const low = qg_cfg_copy(c->mem, n->text, FINGERPRINT_CHARS);
	for (char *p = low; p != NULL && *p != '\0'; p++)
		if (*p >= 'A' && *p <= 'F')
			*p = (char)(*p - 'A' + 'a');
	set_text(c, n, low);
}

/* --- addresses -------------------------------------------------------------- */

/* A text split at its last colon; a host in brackets is an IPv6 address. */
typedef struct endpoint {
	char host[HOST_MAX + 1];
	const char *port;
	bool v6;
} endpoint;

static bool
is_port(const char *s)
{
	const size_t len = strlen(s);
	if (!is_digits(s, len) || len > 5 || s[0] == '0')
		return false;
	return strtoul(s, NULL, 10) <= 65535;
}

static bool
split(const char *text, endpoint *e)
{
	const char *const colon = strrchr(text, ':');
	if (colon == NULL || !is_port(colon + 1))
		return false;
	size_t len = (size_t)(colon - text);
	e->port = colon + 1;
	e->v6 = len >= 2 && text[0] == '[' && text[len - 1] == ']';
	if (e->v6) {
		text++;
		len -= 2;
	}
	if (len == 0 || len > HOST_MAX)
		return false;
	memcpy(e->host, text, len);
	e->host[len] = '\0';
	return true;
}

static bool
is_address(const endpoint *e)
{
	unsigned char raw[16];
	return inet_pton(e->v6 ? AF_INET6 : AF_INET, e->host, raw) == 1;
}

/* Labels of letters, digits, '-' and '_'. A name that ends in a number is none:
 * such texts are mistyped IPv4 addresses. */
static bool
is_host_name(const char *host)
{
	size_t label = 0;
	const char *last = host;
	for (const char *p = host; *p != '\0'; p++) {
		const bool inside = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
				    (*p >= '0' && *p <= '9') || *p == '-' || *p == '_';
		if (*p == '.' && label > 0) {
			label = 0;
			last = p + 1;
		} else if (!inside || ++label > 63) {
			return false;
		}
	}
	return label > 0 && !is_digits(last, strlen(last));
}

static bool
is_host(const endpoint *e)
{
	return is_address(e) || (!e->v6 && is_host_name(e->host));
}

/* The struct takes host and port apart: the node keeps the host, and the port
 * becomes a second member of the map, under a name that no file can give. */
static void
set_endpoint(cfg_checker *c, cfg_node *n, const endpoint *e)
{
	const char *const name = qg_cfg_format(c->mem, "%s port", n->name);
	cfg_node *port = name == NULL ? NULL : qg_cfg_node(c->mem, n->parent, CFG_SCALAR, name, n->line);
	if (port == NULL) {
		c->report->nomem = true;
		return;
	}
	port->text = e->port;
	set_text(c, n, qg_cfg_copy(c->mem, e->host, strlen(e->host)));
}

static void
check_listen(cfg_checker *c, const cfg_option *o, cfg_node *n)
{
	endpoint e;
	(void)o;
	if (split(n->text, &e) && is_address(&e))
		set_endpoint(c, n, &e);
	else
		qg_cfg_problem(c->report, n,
			       "%s is no address to listen on: give IPV4:PORT or [IPV6]:PORT, port 1 to "
			       "65535",
			       qg_cfg_show(c->report, n->text));
}

static void
check_endpoint(cfg_checker *c, const cfg_option *o, cfg_node *n)
{
	endpoint e;
	(void)o;
	if (split(n->text, &e) && is_host(&e))
		set_endpoint(c, n, &e);
	else
		qg_cfg_problem(c->report, n,
			       "%s is not an address: give HOST:PORT or [IPV6]:PORT, port 1 to 65535",
			       qg_cfg_show(c->report, n->text));
}

static void
check_url(cfg_checker *c, const cfg_option *o, cfg_node *n)
{
	endpoint e;
	(void)o;
	if (strncmp(n->text, HTTPS, sizeof HTTPS - 1) != 0 || !split(n->text + sizeof HTTPS - 1, &e) ||
	    !is_host(&e))
		qg_cfg_problem(c->report, n,
			       "%s is not the URL of a gateway: give https://HOST:PORT, without a path",
			       qg_cfg_show(c->report, n->text));
}

/* Host and port of a URL; the port may be left out. */
static bool
split_authority(const char *text, size_t len, endpoint *e)
{
	char authority[HOST_MAX + sizeof "[]:65535"];
	if (len == 0 || len >= sizeof authority)
		return false;
	memcpy(authority, text, len);
	authority[len] = '\0';
	if (!split(authority, e)) {
		memcpy(authority + len, ":443", len + sizeof ":443" <= sizeof authority ? sizeof ":443" : 1);
		if (!split(authority, e))
			return false;
	}
	return is_host(e);
}

/* A complete URL, of whose path only the form counts. Neither user nor
 * fragment, which no request carries. */
static void
check_https(cfg_checker *c, const cfg_option *o, cfg_node *n)
{
	endpoint e;
	check_characters(c, o, n, "\"\\<>^`{|}#@");
	if (n->bad)
		return;
	const char *const rest = n->text + sizeof HTTPS - 1;
	if (strncmp(n->text, HTTPS, sizeof HTTPS - 1) != 0 || !split_authority(rest, strcspn(rest, "/?"), &e))
		qg_cfg_problem(c->report, n, "%s is not a complete URL: give https://HOST:PORT/PATH",
			       qg_cfg_show(c->report, n->text));
}

const cfg_value_type qg_cfg_types[CFG_TYPES] = {
	[CFG_SECTION] = {"a section of options", NULL},
	[CFG_ENTRIES] = {"a list of entries", NULL},
	[CFG_PATTERNS] = {"a list of SAE IDs or patterns", NULL},
	[CFG_NAMES] = {"a list of KME IDs", NULL},
	[CFG_UINT] = {"a whole number", check_uint},
	[CFG_BOOL] = {"true or false", check_bool},
	[CFG_CHOICE] = {"a word", check_choice},
	[CFG_TEXT] = {"a text", check_text},
	[CFG_TOKEN] = {"printable ASCII without spaces", check_token},
	[CFG_NAME] = {"a name of printable ASCII without space, quote, backslash and star", check_name},
	[CFG_PATTERN] = {"a name of printable ASCII without space, quote and backslash, or such with stars",
			 check_pattern},
	[CFG_PATH] = {"a file name", check_path},
	[CFG_SECRET_PATH] = {"a file name or secret:NAME", check_secret_path},
	[CFG_KEY_PATH] = {"a file name, secret:NAME or credential:NAME", check_key_path},
	[CFG_LISTEN] = {"IPV4:PORT or [IPV6]:PORT", check_listen},
	[CFG_ENDPOINT] = {"HOST:PORT or [IPV6]:PORT", check_endpoint},
	[CFG_URL] = {"https://HOST:PORT", check_url},
	[CFG_HTTPS] = {"a complete https URL", check_https},
	[CFG_UUID] = {"a UUID", check_uuid},
	[CFG_FINGERPRINT] = {"64 hex digits", check_fingerprint},
};
