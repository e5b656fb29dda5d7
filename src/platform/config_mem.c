/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "config_internal.h"

/* Heads every block, so that libcyaml, which grows its lists step by step, can
 * resize one while all of them are still freed at once. */
typedef struct cfg_block {
	_Alignas(max_align_t) struct cfg_block *prev;
	struct cfg_block *next;
} cfg_block;

static void
link_block(cfg_mem *m, cfg_block *b)
{
	b->prev = NULL;
	b->next = m->first;
	if (m->first != NULL)
		m->first->prev = b;
	m->first = b;
}

static void
unlink_block(cfg_mem *m, cfg_block *b)
{
	if (b->prev != NULL)
		b->prev->next = b->next;
	else
		m->first = b->next;
	if (b->next != NULL)
		b->next->prev = b->prev;
}

void *
qg_cfg_resize(cfg_mem *m, void *p, size_t n)
{
	cfg_block *old = p == NULL ? NULL : (cfg_block *)p - 1;
	if (old == NULL && n == 0)
		return NULL;
	if (old != NULL)
		unlink_block(m, old);
	if (n == 0) {
		free(old);
		return NULL;
	}
	cfg_block *b = n > SIZE_MAX - sizeof *b ? NULL : realloc(old, sizeof *b + n);
	if (b == NULL) {
		if (old != NULL)
			link_block(m, old);
		return NULL;
	}
	link_block(m, b);
	return b + 1;
}

void *
qg_cfg_alloc(cfg_mem *m, size_t n)
{
	void *p = qg_cfg_resize(m, NULL, n);
	if (p != NULL)
		memset(p, 0, n);
	return p;
}

char *
qg_cfg_copy(cfg_mem *m, const char *text, size_t n)
{
	char *p = n == SIZE_MAX ? NULL : qg_cfg_resize(m, NULL, n + 1);
	if (p == NULL)
		return NULL;
	memcpy(p, text, n);
	p[n] = '\0';
	return p;
}

char *
qg_cfg_format(cfg_mem *m, const char *fmt, ...)
{
	va_list args, again;
	va_start(args, fmt);
	va_copy(again, args);
	const int n = vsnprintf(NULL, 0, fmt, args);
	va_end(args);
	char *p = n < 0 ? NULL : qg_cfg_resize(m, NULL, (size_t)n + 1);
	if (p != NULL && vsnprintf(p, (size_t)n + 1, fmt, again) != n)
		p = NULL;
	va_end(again);
	return p;
}

void
qg_cfg_mem_free(cfg_mem *m)
{
	for (cfg_block *b = m->first, *next; b != NULL; b = next) {
		next = b->next;
		free(b);
	}
	m->first = NULL;
}
