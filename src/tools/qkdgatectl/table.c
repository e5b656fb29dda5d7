/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl_internal.h"

#define CELL_ROOM 512

typedef struct cell {
	char *text;
	ctl_tone tone;
	bool right;
} cell;

struct ctl_table {
	size_t columns, n, room;
	cell *cell;
};

static const char *const tones[] = {
	[TONE_PLAIN] = "", [TONE_GOOD] = "\033[32m", [TONE_WARN] = "\033[33m", [TONE_BAD] = "\033[31m",
	[TONE_HEAD] = "\033[1m",
};

ctl_table *
ctl_table_new(size_t columns)
{
	ctl_table *t = calloc(1, sizeof *t);
	if (t != NULL)
		t->columns = columns;
	return t;
}

/* What comes from the gateway must not steer the terminal. */
static void
make_printable(char *text)
{
	for (char *c = text; *c != '\0'; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
}

void
ctl_cell(ctl_table *t, ctl_tone tone, bool right, const char *fmt, ...)
{
	char text[CELL_ROOM];
	if (t == NULL)
		return;
	if (t->n == t->room) {
		const size_t room = t->room == 0 ? 64 : 2 * t->room;
		cell *more = realloc(t->cell, room * sizeof *more);
		if (more == NULL)
			return;
		t->cell = more;
		t->room = room;
	}
	va_list ap;
	va_start(ap, fmt);
	if (vsnprintf(text, sizeof text, fmt, ap) < 0)
		text[0] = '\0';
	va_end(ap);
	make_printable(text);
	t->cell[t->n++] = (cell){.text = strdup(text), .tone = tone, .right = right};
}

static size_t
width_of(const ctl_table *t, size_t column)
{
	size_t width = 0;
	for (size_t i = column; i < t->n; i += t->columns) {
		const size_t len = t->cell[i].text != NULL ? strlen(t->cell[i].text) : 0;
		width = len > width ? len : width;
	}
	return width;
}

static void
print_cell(const cell *c, size_t width, bool last, bool color)
{
	const char *text = c->text != NULL ? c->text : "?";
	const size_t len = strlen(text), pad = width > len ? width - len : 0;
	const bool toned = color && c->tone != TONE_PLAIN;
	printf("%*s%s%s%s", c->right ? (int)pad : 0, "", toned ? tones[c->tone] : "", text, toned ? "\033[0m" : "");
	if (last)
		printf("\n");
	else
		printf("%*s  ", c->right ? 0 : (int)pad, "");
}

void
ctl_table_print(ctl_table **tp, bool color)
{
	ctl_table *t = *tp;
	*tp = NULL;
	if (t == NULL)
		return;
	for (size_t i = 0; i < t->n; i++) {
		const size_t column = i % t->columns;
		print_cell(&t->cell[i], width_of(t, column), column == t->columns - 1, color);
	}
	for (size_t i = 0; i < t->n; i++)
		free(t->cell[i].text);
	free(t->cell);
	free(t);
}

void
ctl_say(bool color, ctl_tone tone, const char *fmt, ...)
{
	char text[2 * CELL_ROOM];
	va_list ap;
	va_start(ap, fmt);
	if (vsnprintf(text, sizeof text, fmt, ap) < 0)
		text[0] = '\0';
	va_end(ap);
	make_printable(text);
	const bool toned = color && tone != TONE_PLAIN;
	printf("%s%s%s\n", toned ? tones[tone] : "", text, toned ? "\033[0m" : "");
}
