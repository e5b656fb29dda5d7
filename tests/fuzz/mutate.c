/* SPDX-License-Identifier: Apache-2.0 */
/* How inputs are changed beside libFuzzer's own ways, which break what has a form
 * before a reader has come far: values of a JSON document, found wherever it stands
 * in the input, and whole lines of headers and of YAML. Afterwards lengths that the
 * input names are mostly those that it has. Linked with libFuzzer alone. */
#include <stdbool.h>

#include <jansson.h>

#include "fuzz.h"

#define SLOTS_MAX 256
#define LINES_MAX 512
#define ROOM ((size_t)1 << 17)

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed);

static uint32_t state;

/* Below n. */
static size_t
pick(size_t n)
{
	state = state * 1664525u + 1013904223u;
	return (state >> 8) % n;
}

#define PICK(a) ((a)[pick(sizeof(a) / sizeof((a)[0]))])

/* --- values of JSON ------------------------------------------------------------ */

static const char *const values[] = {
	"0", "1", "-1", "7", "8", "255", "256", "65535", "65536", "2147483647", "2147483648",
	"4294967295", "4294967296", "9007199254740993", "9223372036854775807", "-9223372036854775808",
	"0.5", "1e3", "1e308", "-0.0", "true", "false", "null", "\"\"", "\" \"", "\"A\"", "\"AAAA\"", "\"AA==\"",
	"\"00000000-0000-0000-0000-000000000000\"", "\"ffffffff-ffff-4fff-bfff-ffffffffffff\"",
	"\"sae-a\"", "\"\\u0000\"", "\"\\ud83d\\ude00\"", "[]", "{}", "[null]", "[[]]", "{\"a\":{}}",
};

/* A place in a document that holds a value: a member of an object or an element. */
typedef struct slot {
	json_t *parent;
	const char *name; /* NULL: an element */
	size_t index;
} slot;

static slot slots[SLOTS_MAX];
static size_t n_slots;

static void
collect(json_t *parent)
{
	const char *name;
	size_t i;
	json_t *v;
	json_object_foreach (parent, name, v) {
		if (n_slots == SLOTS_MAX)
			return;
		slots[n_slots++] = (slot){.parent = parent, .name = name};
		collect(v);
	}
	json_array_foreach (parent, i, v) {
		if (n_slots == SLOTS_MAX)
			return;
		slots[n_slots++] = (slot){.parent = parent, .index = i};
		collect(v);
	}
}

static json_t *
value_at(const slot *s)
{
	return s->name != NULL ? json_object_get(s->parent, s->name) : json_array_get(s->parent, s->index);
}

/* Takes the value over. */
static void
put(const slot *s, json_t *v)
{
	if (v == NULL)
		return;
	if (s->name != NULL)
		(void)json_object_set_new(s->parent, s->name, v);
	else
		(void)json_array_set_new(s->parent, s->index, v);
}

static json_t *
some_value(void)
{
	return json_loads(PICK(values), JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
}

/* A text stays one, with other characters. */
static json_t *
other_text(const json_t *v)
{
	static char text[8192];
	const size_t n = json_string_length(v);
	if (n > sizeof text)
		return NULL;
	memcpy(text, json_string_value(v), n);
	return json_stringn(text, LLVMFuzzerMutate((uint8_t *)text, n, sizeof text));
}

static void
remove_at(const slot *s)
{
	if (s->name != NULL)
		(void)json_object_del(s->parent, s->name);
	else
		(void)json_array_remove(s->parent, s->index);
}

static void
repeat(const slot *s)
{
	json_t *v = value_at(s);
	for (size_t left = (size_t)1 << pick(8); left > 0; left--) {
		if (s->name == NULL)
			(void)json_array_insert(s->parent, s->index, v);
		else if (json_is_array(v) && json_array_size(v) > 0 && json_array_size(v) < 4096)
			(void)json_array_append(v, json_array_get(v, pick(json_array_size(v))));
	}
}

static void
change(const slot *s)
{
	json_t *v = value_at(s);
	const slot *other = &slots[pick(n_slots)];
	switch (pick(7)) {
	case 0:
		remove_at(s);
		break;
	case 1:
		repeat(s);
		break;
	case 2:
		put(s, json_deep_copy(value_at(other)));
		break;
	case 3:
		put(s, pick(2) ? json_pack("[O]", v) : json_pack("{sO}", "key_ID", v));
		break;
	case 4:
		if (json_is_object(v) || json_is_object(s->parent))
			(void)json_object_set_new(json_is_object(v) ? v : s->parent,
						  other->name != NULL ? other->name : "x", some_value());
		break;
	default:
		put(s, json_is_string(v) && pick(4) ? other_text(v) : some_value());
		break;
	}
}

/* Writes a document; now and then its first member twice, which no tree holds. */
static size_t
write_document(json_t *doc, char *out, size_t room)
{
	static const size_t forms[] = {JSON_COMPACT, JSON_COMPACT | JSON_ENSURE_ASCII, JSON_INDENT(1), 0};
	const size_t n = json_dumpb(doc, out, room, PICK(forms) | JSON_ENCODE_ANY);
	const char *end = n > 0 && n <= room && json_is_object(doc) ? memchr(out, ',', n) : NULL;
	if (end == NULL || pick(16) != 0)
		return n <= room ? n : 0;
	const size_t again = (size_t)(end - out);
	if (n + again > room)
		return n;
	memmove(out + 1 + again, out + 1, n - 1);
	return n + again;
}

/* The first document of an input. */
static json_t *
find_document(const uint8_t *data, size_t size, size_t *at, size_t *len)
{
	for (*at = 0; *at < size; (*at)++) {
		json_error_t why;
		if (data[*at] != '{' && data[*at] != '[')
			continue;
		json_t *doc = json_loadb((const char *)data + *at, size - *at, JSON_DISABLE_EOF_CHECK | JSON_ALLOW_NUL, &why);
		*len = doc != NULL ? (size_t)why.position : 0;
		return doc;
	}
	return NULL;
}

/* 0: the input holds none, or it cannot be written. */
static size_t
mutate_json(uint8_t *data, size_t size, size_t max)
{
	static char out[ROOM];
	size_t at, len, n = 0;
	json_t *doc = find_document(data, size, &at, &len);
	for (size_t times = 1 + pick(3); doc != NULL && times > 0; times--) {
		n_slots = 0;
		collect(doc);
		if (n_slots > 0)
			change(&slots[pick(n_slots)]);
	}
	const size_t behind = doc != NULL ? size - at - len : 0;
	if (doc != NULL && at + behind < max)
		n = write_document(doc, out, max - at - behind < ROOM ? max - at - behind : ROOM);
	json_decref(doc);
	if (n == 0)
		return 0;
	memmove(data + at + n, data + at + len, behind);
	memcpy(data + at, out, n);
	return at + n + behind;
}

/* --- lines ----------------------------------------------------------------------- */

typedef struct line {
	const char *p;
	size_t n;
} line;

static line lines[LINES_MAX];

/* Each with its newline. */
static size_t
split(const char *text, size_t size)
{
	size_t n = 0;
	while (size > 0 && n < LINES_MAX) {
		const char *end = memchr(text, '\n', size);
		const size_t len = end != NULL && n < LINES_MAX - 1 ? (size_t)(end - text) + 1 : size;
		lines[n++] = (line){text, len};
		text += len;
		size -= len;
	}
	return n;
}

/* NAME: VALUE or NAME=VALUE with another value, or a line that is further in. */
static size_t
other_line(const line *l, char *out, size_t room)
{
	static const char *const in[] = {"", " ", "  ", "    ", "\t", "- "};
	const char *colon = memchr(l->p, ':', l->n), *equals = memchr(l->p, '=', l->n);
	const char *at = colon != NULL ? colon : equals;
	int n;
	if (at == NULL || pick(3) == 0)
		n = snprintf(out, room, "%s%.*s", PICK(in), (int)l->n, l->p);
	else
		n = snprintf(out, room, "%.*s%s%s\n", (int)(at - l->p + 1), l->p, at == colon ? " " : "", PICK(values));
	return n > 0 && (size_t)n < room ? (size_t)n : 0;
}

static size_t
mutate_lines(uint8_t *data, size_t size, size_t max)
{
	static char text[ROOM], changed[ROOM], out[ROOM];
	if (size > sizeof text)
		return 0;
	memcpy(text, data, size);
	size_t n = split(text, size), len = 0;
	if (n < 2)
		return 0;
	const size_t a = pick(n), b = pick(n);
	const line kept = lines[a];
	switch (pick(4)) {
	case 0: /* two change places */
		lines[a] = lines[b];
		lines[b] = kept;
		break;
	case 1: /* one is gone */
		lines[a].n = 0;
		break;
	case 2: /* one stands in the place of another */
		lines[a] = lines[b];
		break;
	default:
		lines[a] = (line){changed, other_line(&kept, changed, sizeof changed)};
	}
	const size_t twice = pick(2) ? pick(n) : n; /* this one more */
	for (size_t i = 0; i < n; i++)
		for (int k = 0; k < (i == twice ? 2 : 1); k++) {
			if (len + lines[i].n > max || len + lines[i].n > sizeof out)
				return 0;
			memcpy(out + len, lines[i].p, lines[i].n);
			len += lines[i].n;
		}
	memcpy(data, out, len);
	return len;
}

/* --- lengths ----------------------------------------------------------------------- */

/* A target whose inputs say how long they are has its own. */
__attribute__((weak)) void
fuzz_mend(uint8_t *data, size_t size)
{
	(void)data, (void)size;
}

/* A Content-Length becomes what stands behind the head, in as many digits as it had. */
static void
mend_content_length(uint8_t *data, size_t size)
{
	static const char name[] = "Content-Length: ";
	uint8_t *length = memmem(data, size, name, sizeof name - 1);
	uint8_t *head = memmem(data, size, "\r\n\r\n", 4);
	if (length == NULL || head == NULL || length > head)
		return;
	size_t body = size - (size_t)(head + 4 - data), digits = 0;
	length += sizeof name - 1;
	while (length + digits < head && length[digits] >= '0' && length[digits] <= '9')
		digits++;
	for (; digits > 0; digits--, body /= 10)
		length[digits - 1] = (uint8_t)('0' + body % 10);
}

size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
	size_t n = 0;
	state = seed;
	const size_t way = pick(8);
	if (way < 4)
		n = mutate_json(data, size, max_size);
	else if (way < 6)
		n = mutate_lines(data, size, max_size);
	if (n == 0)
		n = LLVMFuzzerMutate(data, size, max_size);
	if (pick(8) != 0) {
		mend_content_length(data, n);
		fuzz_mend(data, n);
	}
	return n;
}
