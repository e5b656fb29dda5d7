/* SPDX-License-Identifier: Apache-2.0 */
/* The form of SAE IDs and headers; messages. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "etsi014_internal.h"
#include "qkdgate/encode.h"

void
qg_014_say(qg_014_problem *why, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	const int n = vsnprintf(why->message, sizeof why->message, fmt, args);
	va_end(args);
	if (n < 0)
		why->message[0] = '\0'; /* a message that is too long is cut, which harms nobody */
}

bool
qg_014_sae_id_valid(const char *id)
{
	const unsigned char *s = (const unsigned char *)id;
	bool blank = true;
	size_t len = 0;
	while (s[len] != '\0') {
		const size_t n = qg_utf8_len(id + len);
		if (n == 0 || s[len] < ' ' || s[len] == 0x7f)
			return false;
		if (s[len] == 0xc2 && s[len + 1] < 0xa0) /* C1 controls */
			return false;
		blank = blank && s[len] == ' ';
		len += n;
		if (len > QG_014_SAE_ID_MAX)
			return false;
	}
	return !blank;
}

static const char *
skip_space(const char *s)
{
	return s + strspn(s, " \t");
}

bool
qg_014_type_is_json(const char *content_type)
{
	static const char type[] = "application/json";
	static const char charset[] = "charset=";
	if (content_type == NULL)
		return false;
	const char *s = skip_space(content_type);
	if (strncasecmp(s, type, sizeof type - 1) != 0)
		return false;
	s = skip_space(s + sizeof type - 1);
	if (*s == '\0')
		return true;
	if (*s++ != ';')
		return false;
	s = skip_space(s);
	if (strncasecmp(s, charset, sizeof charset - 1) != 0)
		return false;
	s += sizeof charset - 1;
	const bool quoted = *s == '"';
	s += quoted;
	if (strncasecmp(s, "utf-8", 5) != 0)
		return false;
	s += 5;
	if (quoted && *s++ != '"')
		return false;
	return *skip_space(s) == '\0';
}
