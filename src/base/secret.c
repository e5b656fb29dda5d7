/* SPDX-License-Identifier: Apache-2.0 */
/* A sodium_malloc costs as much as serving a request, so blocks of a few sizes
 * are carved from arenas of 1 MiB that sodium guards and locks. A block that
 * is not in use holds only zeroes behind its header: qg_secret_free wipes what
 * its owner could write, and so qg_secret_new need not. */
#include "qkdgate/secret.h"

#include <assert.h>
#include <malloc.h>
#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define POISONING 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POISONING 1
#endif
#endif
#ifdef POISONING
#include <sanitizer/asan_interface.h>
#define HIDE(p, n) ASAN_POISON_MEMORY_REGION(p, n)
#define SHOW(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define HIDE(p, n) ((void)(p), (void)(n))
#define SHOW(p, n) ((void)(p), (void)(n))
#endif

#define ARENA_SIZE ((size_t)1024 * 1024)
#define ALIGN 64

#define MARK_LIVE 0x71676c76u
#define MARK_FREE 0x71676672u
#define CLASS_NONE 0xffffffffu

typedef struct block block;

/* Heads every block; its bytes follow. */
struct block {
	_Alignas(16) qg_secret secret;
	block *next;
	uint32_t mark;
	uint32_t class_no;
};

/* Heads every arena; the padding keeps the blocks on cache lines. */
typedef struct arena {
	_Alignas(ALIGN) struct arena *next;
} arena;

typedef struct size_class {
	const size_t size; /* of a block with its header */
	pthread_mutex_t lock;
	block *free_list;
	arena *arenas;
} size_class;

/* 9 KiB: a segment of 256 chunks of 32 bytes; 72 KiB: one of 256 bytes. */
static size_class classes[] = {
	{.size = 128, .lock = PTHREAD_MUTEX_INITIALIZER},
	{.size = 1024, .lock = PTHREAD_MUTEX_INITIALIZER},
	{.size = (size_t)9 * 1024, .lock = PTHREAD_MUTEX_INITIALIZER},
	{.size = (size_t)72 * 1024, .lock = PTHREAD_MUTEX_INITIALIZER},
};
#define N_CLASSES ((uint32_t)(sizeof classes / sizeof classes[0]))

static atomic_size_t live;

/* Those of no class, so that they can be found. */
static pthread_mutex_t large_lock = PTHREAD_MUTEX_INITIALIZER;
static block *large_list;

static uint8_t *
bytes_of(block *b)
{
	return (uint8_t *)(b + 1);
}

/* The secret is the first member. */
static block *
block_of(qg_secret *s)
{
	return (block *)(void *)s;
}

static qg_err
class_grow(size_class *c, uint32_t class_no)
{
	uint8_t *mem = sodium_malloc(ARENA_SIZE);
	if (mem == NULL)
		return QG_E_NOMEM;
	memset(mem, 0, ARENA_SIZE);
	arena *a = (arena *)(void *)mem;
	a->next = c->arenas;
	c->arenas = a;
	for (size_t at = sizeof *a; at + c->size <= ARENA_SIZE; at += c->size) {
		block *b = (block *)(void *)(mem + at);
		b->mark = MARK_FREE;
		b->class_no = class_no;
		b->next = c->free_list;
		c->free_list = b;
		HIDE(bytes_of(b), c->size - sizeof *b);
	}
	return QG_OK;
}

/* Under the lock of those that qg_secret_wipe_all looks through. */
static void
block_begin(block *b, size_t room)
{
	b->mark = MARK_LIVE;
	b->secret = (qg_secret){.data = bytes_of(b), .len = 0, .room = room};
	SHOW(bytes_of(b), room);
}

static block *
class_take(size_class *c, uint32_t class_no, size_t room)
{
	block *b = NULL;
	pthread_mutex_lock(&c->lock);
	if (c->free_list != NULL || class_grow(c, class_no) == QG_OK) {
		b = c->free_list;
		assert(b != NULL); /* an arena has room for one of any class */
		c->free_list = b->next;
		assert(b->mark == MARK_FREE);
		b->next = NULL;
		block_begin(b, room);
	}
	pthread_mutex_unlock(&c->lock);
	return b;
}

static void
class_give(size_class *c, block *b)
{
	pthread_mutex_lock(&c->lock);
	HIDE(bytes_of(b), c->size - sizeof *b);
	b->secret = (qg_secret){0};
	b->mark = MARK_FREE;
	b->next = c->free_list;
	c->free_list = b;
	pthread_mutex_unlock(&c->lock);
}

static block *
large_new(size_t room)
{
	size_t size = (sizeof(block) + room + ALIGN - 1) / ALIGN * ALIGN;
	block *b = sodium_malloc(size);
	if (b == NULL)
		return NULL;
	memset(b, 0, size);
	b->class_no = CLASS_NONE;
	pthread_mutex_lock(&large_lock);
	block_begin(b, room);
	b->next = large_list;
	large_list = b;
	pthread_mutex_unlock(&large_lock);
	return b;
}

static void
large_free(block *b)
{
	pthread_mutex_lock(&large_lock);
	block **at = &large_list;
	while (*at != b)
		at = &(*at)->next;
	*at = b->next;
	pthread_mutex_unlock(&large_lock);
	sodium_free(b); /* wipes */
}

qg_err
qg_secret_init(void)
{
	return sodium_init() < 0 ? QG_E_NOMEM : QG_OK;
}

void
qg_secret_fini(void)
{
	assert(atomic_load(&live) == 0);
	for (uint32_t i = 0; i < N_CLASSES; i++) {
		size_class *c = &classes[i];
		arena *a = c->arenas;
		c->arenas = NULL;
		c->free_list = NULL;
		while (a != NULL) {
			arena *next = a->next;
			SHOW(a, ARENA_SIZE);
			sodium_free(a);
			a = next;
		}
	}
}

qg_err
qg_secret_new(size_t room, qg_secret **out)
{
	block *b;
	if (room > SIZE_MAX / 2)
		return QG_E_NOMEM;
	uint32_t i = 0;
	while (i < N_CLASSES && room > classes[i].size - sizeof(block))
		i++;
	b = i < N_CLASSES ? class_take(&classes[i], i, room) : large_new(room);
	if (b == NULL)
		return QG_E_NOMEM;
	atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
	*out = &b->secret;
	return QG_OK;
}

void
qg_secret_free(qg_secret **s)
{
	if (s == NULL || *s == NULL)
		return;
	block *b = block_of(*s);
	assert(b->mark == MARK_LIVE);
	*s = NULL;
	atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
	if (b->class_no == CLASS_NONE) {
		large_free(b);
		return;
	}
	size_class *c = &classes[b->class_no];
	assert(b->secret.data == bytes_of(b) && b->secret.room <= c->size - sizeof *b);
	qg_wipe(bytes_of(b), b->secret.room);
	class_give(c, b);
}

/* Free blocks hold only zeroes. */
static void
class_wipe(size_class *c)
{
	pthread_mutex_lock(&c->lock);
	for (arena *a = c->arenas; a != NULL; a = a->next)
		for (size_t at = sizeof *a; at + c->size <= ARENA_SIZE; at += c->size) {
			block *b = (block *)(void *)((uint8_t *)a + at);
			if (b->mark == MARK_LIVE)
				sodium_memzero(bytes_of(b), b->secret.room);
		}
	pthread_mutex_unlock(&c->lock);
}

void
qg_secret_wipe_all(void)
{
	for (uint32_t i = 0; i < N_CLASSES; i++)
		class_wipe(&classes[i]);
	pthread_mutex_lock(&large_lock);
	for (block *b = large_list; b != NULL; b = b->next)
		sodium_memzero(bytes_of(b), b->secret.room);
	pthread_mutex_unlock(&large_lock);
}

qg_err
qg_secret_append(qg_secret *s, const void *bytes, size_t n)
{
	assert(s->len <= s->room);
	if (n > s->room - s->len)
		return QG_E_RANGE;
	if (n > 0)
		memcpy(s->data + s->len, bytes, n);
	s->len += n;
	return QG_OK;
}

void
qg_wipe(void *p, size_t n)
{
	if (n > 0)
		sodium_memzero(p, n);
}

/* More than any cipher or hash of libsodium takes. */
#define STACK_DEPTH 4096

void
qg_wipe_stack(void)
{
	sodium_stackzero(STACK_DEPTH);
}

void
qg_free_wiped_to(void *p, size_t most)
{
	if (p == NULL)
		return;
	const size_t has = malloc_usable_size(p);
	qg_wipe(p, has < most ? has : most);
	free(p);
}

void
qg_free_wiped(void *p)
{
	qg_free_wiped_to(p, SIZE_MAX);
}

void *
qg_realloc_wiped(void *p, size_t n)
{
	const size_t had = p != NULL ? malloc_usable_size(p) : 0;
	void *to = malloc(n > 0 ? n : 1);
	if (to == NULL)
		return NULL;
	if (had > 0)
		memcpy(to, p, had < n ? had : n);
	qg_free_wiped(p);
	return to;
}

bool
qg_equal_ct(const void *a, const void *b, size_t n)
{
	return sodium_memcmp(a, b, n) == 0;
}

void
qg_random(void *p, size_t n)
{
	randombytes_buf(p, n);
}
