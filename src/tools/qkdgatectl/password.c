/* SPDX-License-Identifier: Apache-2.0 */
/* A line for the file admin.passwords.file. The password comes from the terminal or from
 * standard input, never from the command line. */
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "ctl_internal.h"
#include "qkdgate/passwords.h"
#include "qkdgate/secret.h"

#define READ_ONLY "read_only"

#define INTERRUPT 3 /* Ctrl-C */

/* Nothing is shown, and Ctrl-C ends the line, so that the terminal is put right again. */
static bool
set_quiet(struct termios *before)
{
	if (tcgetattr(STDIN_FILENO, before) != 0)
		return false;
	struct termios t = *before;
	t.c_lflag &= ~(tcflag_t)(ECHO | ISIG);
	t.c_cc[VEOL] = INTERRUPT;
	return tcsetattr(STDIN_FILENO, TCSAFLUSH, &t) == 0;
}

/* One line, byte by byte, so that nothing of it stays in a buffer. False: its end did not
 * come within the room. */
static bool
read_line(qg_secret *s)
{
	s->len = 0;
	for (;;) {
		const ssize_t n = read(STDIN_FILENO, s->data + s->len, 1);
		if (n < 0 || (n == 0 && s->len == 0) || (n == 1 && s->data[s->len] == INTERRUPT))
			return false;
		if (n == 0 || s->data[s->len] == '\n')
			return true;
		if (++s->len == s->room)
			return false;
	}
}

static bool
ask(const char *prompt, qg_secret *s)
{
	const bool terminal = isatty(STDIN_FILENO) == 1;
	struct termios before;
	if (terminal && !set_quiet(&before))
		return false;
	if (terminal)
		fprintf(stderr, "%s: ", prompt);
	const bool ok = read_line(s);
	if (terminal) {
		fprintf(stderr, "\n");
		(void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
	}
	return ok;
}

static bool
read_password(qg_secret **out)
{
	QG_SECRET_AUTO *once = NULL, *twice = NULL;
	if (qg_secret_new(QG_PASSWORD_MAX + 2, &once) != QG_OK || qg_secret_new(QG_PASSWORD_MAX + 2, &twice) != QG_OK) {
		fprintf(stderr, "qkdgatectl: out of memory\n");
		return false;
	}
	if (!ask("Password", once)) {
		fprintf(stderr, "qkdgatectl: no password was given, or it is too long\n");
		return false;
	}
	if (isatty(STDIN_FILENO) == 1 &&
	    (!ask("Once more", twice) || twice->len != once->len || !qg_equal_ct(once->data, twice->data, once->len))) {
		fprintf(stderr, "qkdgatectl: the two are not the same\n");
		return false;
	}
	*out = once;
	once = NULL;
	return true;
}

int
ctl_hash_password(const ctl_options *o, const ctl_command *c)
{
	QG_SECRET_AUTO *password = NULL;
	char line[QG_PASSWORD_LINE_ROOM];
	const bool read_only = o->n_arguments == 2;
	if (read_only && strcmp(o->arguments[1], READ_ONLY) != 0) {
		fprintf(stderr, "usage: qkdgatectl %s %s\n", c->name, c->arguments);
		return CTL_USAGE;
	}
	if (!read_password(&password))
		return CTL_USAGE;
	const qg_err err = qg_passwords_line(o->arguments[0], (const char *)password->data, password->len, read_only, line);
	if (err == QG_E_INVAL)
		fprintf(stderr, "qkdgatectl: a name has 1 to %d printable characters: no blank, colon, quote, backslash, "
				"<, > or &, and no # at its begin\n", QG_PASSWORD_NAME_MAX);
	else if (err == QG_E_RANGE)
		fprintf(stderr, "qkdgatectl: a password has %d to %d bytes\n", QG_PASSWORD_MIN, QG_PASSWORD_MAX);
	else if (err != QG_OK)
		fprintf(stderr, "qkdgatectl: %s\n", qg_err_text(err));
	if (err != QG_OK)
		return err == QG_E_NOMEM ? CTL_FAILED : CTL_USAGE;
	printf("%s\n", line);
	return CTL_DONE;
}
