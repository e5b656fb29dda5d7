/* SPDX-License-Identifier: Apache-2.0 */
/* ${VARIABLE} in values: the pass between the tree and its checks. What comes in
 * is text, never YAML, and is not looked through again. */
#include <stdlib.h>
#include <string.h>

#include "config_internal.h"
#include "qkdgate/encode.h"

#define VALUE_MAX ((size_t)4096) /* bytes of a value in which variables stand */
#define NAME_MAX_BYTES ((size_t)128)
#define LETTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_"
#define DIGITS "0123456789"

typedef struct expander {
	cfg_report *report;
	cfg_node *node;
	const char *at; /* what is left of the value as it stands in the file */
	char out[VALUE_MAX + 1];
	size_t len;
} expander;

static bool
put(expander *x, const char *text, size_t n)
{
	if (n > VALUE_MAX - x->len) {
		qg_cfg_problem(x->report, x->node, "is longer than %zu bytes with its variables", VALUE_MAX);
		return false;
	}
	memcpy(x->out + x->len, text, n);
	x->len += n;
	return true;
}

/* As what libyaml takes from a file, and without the characters that only a
 * text in quotes could hold there. */
static bool
is_text(const char *value)
{
	const unsigned char *p = (const unsigned char *)value;
	while (*p != '\0') {
		const size_t n = qg_utf8_len((const char *)p);
		if (n == 0 || *p < ' ' || *p == 0x7f)
			return false;
		p += n;
	}
	return true;
}

/* The value is not shown: nobody knows what it was meant for. */
static bool
put_variable(expander *x, const char *name, const char *preset, size_t preset_len)
{
	const char *const value = getenv(name);
	if (value != NULL && (value[0] != '\0' || preset == NULL)) {
		if (is_text(value))
			return put(x, value, strlen(value));
		qg_cfg_problem(x->report, x->node,
			       "variable %s holds a control character or is not UTF-8: set it to plain text",
			       name);
		return false;
	}
	if (preset != NULL)
		return put(x, preset, preset_len);
	qg_cfg_problem(x->report, x->node, "variable %s is not set: set it, or give ${%s:-DEFAULT}", name, name);
	return false;
}

/* Behind "${". */
static bool
expand_variable(expander *x)
{
	char name[NAME_MAX_BYTES + 1];
	const char *const end = strchr(x->at, '}');
	const size_t len = strspn(x->at, LETTERS) == 0 ? 0 : strspn(x->at, LETTERS DIGITS);
	const char *const rest = x->at + len;
	const bool preset = strncmp(rest, ":-", 2) == 0;
	if (end == NULL) {
		qg_cfg_problem(x->report, x->node, "has a ${ without its }");
		return false;
	}
	if (len == 0 || len > NAME_MAX_BYTES || (rest != end && !preset) ||
	    memchr(rest, '$', (size_t)(end - rest)) != NULL) {
		qg_cfg_problem(x->report, x->node,
			       "names no variable in ${...}: give ${NAME} or ${NAME:-DEFAULT}, without $ and } "
			       "in the default");
		return false;
	}
	memcpy(name, x->at, len);
	name[len] = '\0';
	x->at = end + 1;
	return put_variable(x, name, preset ? rest + 2 : NULL, preset ? (size_t)(end - rest) - 2 : 0);
}

static bool
expand_dollar(expander *x)
{
	const char second = x->at[1];
	if (second != '$' && second != '{') {
		qg_cfg_problem(x->report, x->node, "has a $ that begins no ${VARIABLE}: write $$ for a dollar");
		return false;
	}
	x->at += 2;
	return second == '$' ? put(x, "$", 1) : expand_variable(x);
}

static void
expand(cfg_report *r, cfg_node *n)
{
	expander x = {.report = r, .node = n, .at = n->text};
	while (*x.at != '\0') {
		const size_t plain = strcspn(x.at, "$");
		const char *const text = x.at;
		x.at += plain;
		if (!put(&x, text, plain) || (*x.at == '$' && !expand_dollar(&x)))
			return;
	}
	const char *const text = qg_cfg_copy(r->mem, x.out, x.len);
	if (text == NULL) {
		r->nomem = true;
		return;
	}
	n->raw = n->text;
	n->text = text;
}

void
qg_cfg_expand(cfg_report *r, cfg_node *node)
{
	if (node->kind == CFG_SCALAR && !node->bad && strchr(node->text, '$') != NULL)
		expand(r, node);
	for (cfg_node *n = node->first; n != NULL; n = n->next)
		qg_cfg_expand(r, n);
}
