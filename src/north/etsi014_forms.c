/* SPDX-License-Identifier: Apache-2.0 */
/* The form of SAE IDs and headers; messages. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "etsi014_internal.h"

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

/* Bytes of the UTF-8 sequence that s begins with (RFC 3629), 0 when it is none. */
static size_t
utf8_len(const unsigned char *s)
{
	static const struct {
		unsigned char first, last, second_min, second_max;
		size_t len;
	} forms[] = {
		{0x01, 0x7f, 0, 0xff, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
		{0xe1, 0xec, 0x80, 0xbf, 3},    {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
		{0xf0, 0xf0, 0x90, 0xbf, 4},    {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
	};
	for (size_t f = 0; f < sizeof forms / sizeof forms[0]; f++) {
		if (s[0] < forms[f].first || s[0] > forms[f].last)
			continue;
		if (forms[f].len > 1 && (s[1] < forms[f].second_min || s[1] > forms[f].second_max))
			return 0;
		for (size_t i = 2; i < forms[f].len; i++)
			if ((s[i] & 0xc0) != 0x80)
				return 0;
		return forms[f].len;
	}
	return 0;
}

bool
qg_014_sae_id_valid(const char *id)
{
	const unsigned char *s = (const unsigned char *)id;
	bool blank = true;
	size_t len = 0;
	while (s[len] != '\0') {
		const size_t n = utf8_len(s + len);
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
