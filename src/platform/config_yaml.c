/* SPDX-License-Identifier: Apache-2.0 */
/* The one file that includes libyaml and libcyaml. Files come in as a tree of
 * nodes with line numbers; a tree that passed all checks and has all defaults
 * goes out again as YAML text, from which libcyaml fills the struct by the same
 * schema. */
#include <cyaml/cyaml.h>
#include <string.h>
#include <yaml.h>

#include "config_internal.h"

/* --- text to tree ------------------------------------------------------------ */

typedef struct reader {
	cfg_report *report;
	cfg_mem *mem;
	cfg_node *root;
	cfg_node *open[QG_CFG_DEPTH_MAX]; /* lists and maps being read */
	size_t depth;
	const char *name; /* of the next member of the innermost map */
	unsigned name_line;
	bool name_bad;
	size_t nodes;
	size_t documents;
} reader;

static unsigned
line_of(yaml_mark_t mark)
{
	return mark.line >= UINT32_MAX ? UINT32_MAX : (unsigned)mark.line + 1;
}

static bool
wants_name(const reader *rd)
{
	return rd->depth > 0 && rd->open[rd->depth - 1]->kind == CFG_MAP && rd->name == NULL;
}

/* A node at the place where the reader is. A list or map in place of a name
 * hangs in the air. */
static cfg_node *
add_node(reader *rd, cfg_kind kind, unsigned line)
{
	cfg_node *parent = rd->depth == 0 ? NULL : rd->open[rd->depth - 1];
	const char *name = NULL;
	bool bad = false;
	if (wants_name(rd)) {
		qg_cfg_problem_at(rd->report, line, "syntax", "an option name must be a single word");
		rd->name = "?";
		rd->name_line = line;
		rd->name_bad = true;
		parent = NULL;
	} else if (parent != NULL && parent->kind == CFG_MAP) {
		name = rd->name;
		line = rd->name_line;
		bad = rd->name_bad;
		rd->name = NULL;
		rd->name_bad = false;
	}
	cfg_node *n = qg_cfg_node(rd->mem, parent, kind, name, line);
	if (n == NULL) {
		rd->report->nomem = true;
		return NULL;
	}
	n->bad = bad;
	rd->nodes++;
	if (rd->root == NULL)
		rd->root = n;
	return n;
}

/* Reported, but what is marked so is still checked like the rest. */
static void
check_mark_up(reader *rd, cfg_node *n, const yaml_char_t *anchor, const yaml_char_t *tag)
{
	const bool bad = n->bad;
	if (anchor != NULL)
		qg_cfg_problem(rd->report, n,
			       "anchors (&) are not allowed: write the value out where it is needed");
	if (tag != NULL && strcmp((const char *)tag, "!") != 0)
		qg_cfg_problem(rd->report, n, "tags (!) are not allowed: take it out");
	n->bad = bad;
}

static qg_err
on_open(reader *rd, cfg_kind kind, const yaml_event_t *e, const yaml_char_t *anchor, const yaml_char_t *tag)
{
	if (rd->depth == QG_CFG_DEPTH_MAX) {
		qg_cfg_problem_at(rd->report, line_of(e->start_mark), "syntax", "is nested more than %d deep",
				  QG_CFG_DEPTH_MAX);
		return QG_E_PARSE;
	}
	cfg_node *const n = add_node(rd, kind, line_of(e->start_mark));
	if (n == NULL)
		return QG_E_NOMEM;
	check_mark_up(rd, n, anchor, tag);
	rd->open[rd->depth++] = n;
	return QG_OK;
}

static qg_err
on_name(reader *rd, const char *text, size_t len, unsigned line)
{
	rd->name = qg_cfg_copy(rd->mem, text, len);
	rd->name_line = line;
	if (rd->name == NULL)
		return QG_E_NOMEM;
	if (strlen(rd->name) == len)
		return QG_OK;
	qg_cfg_problem_at(rd->report, line, "syntax", "an option name holds a NUL character");
	rd->name_bad = true;
	return QG_OK;
}

static qg_err
on_scalar(reader *rd, const yaml_event_t *e)
{
	const char *const text = (const char *)e->data.scalar.value;
	const size_t len = e->data.scalar.length;
	const unsigned line = line_of(e->start_mark);
	if (wants_name(rd) && e->data.scalar.anchor == NULL && e->data.scalar.tag == NULL)
		return on_name(rd, text, len, line);
	cfg_node *const n = add_node(rd, CFG_SCALAR, line);
	if (n == NULL)
		return QG_E_NOMEM;
	n->text = qg_cfg_copy(rd->mem, text, len);
	n->quoted = e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
	if (n->text == NULL)
		return QG_E_NOMEM;
	check_mark_up(rd, n, e->data.scalar.anchor, e->data.scalar.tag);
	if (strlen(n->text) != len)
		qg_cfg_problem(rd->report, n, "holds a NUL character: take it out");
	return QG_OK;
}

static qg_err
on_alias(reader *rd, const yaml_event_t *e)
{
	cfg_node *const n = add_node(rd, CFG_SCALAR, line_of(e->start_mark));
	if (n == NULL)
		return QG_E_NOMEM;
	n->text = "";
	qg_cfg_problem(rd->report, n, "aliases (*) are not allowed: write the value out");
	return QG_OK;
}

static qg_err
on_event(reader *rd, const yaml_event_t *e)
{
	if (rd->nodes > QG_CFG_NODES_MAX) {
		qg_cfg_problem_at(rd->report, line_of(e->start_mark), "file",
				  "has too many values: give at most %d",
				  QG_CFG_NODES_MAX);
		return QG_E_PARSE;
	}
	switch (e->type) {
	case YAML_DOCUMENT_START_EVENT:
		if (rd->documents++ == 0)
			return QG_OK;
		qg_cfg_problem_at(rd->report, line_of(e->start_mark), "syntax",
				  "is a second document: give one");
		return QG_E_PARSE;
	case YAML_MAPPING_START_EVENT:
		return on_open(rd, CFG_MAP, e, e->data.mapping_start.anchor, e->data.mapping_start.tag);
	case YAML_SEQUENCE_START_EVENT:
		return on_open(rd, CFG_LIST, e, e->data.sequence_start.anchor, e->data.sequence_start.tag);
	case YAML_MAPPING_END_EVENT:
	case YAML_SEQUENCE_END_EVENT:
		rd->depth--;
		return QG_OK;
	case YAML_SCALAR_EVENT:
		return on_scalar(rd, e);
	case YAML_ALIAS_EVENT:
		return on_alias(rd, e);
	default:
		return QG_OK;
	}
}

/* libyaml gives no line for bytes that are no characters, but their place. */
static unsigned
error_line(const yaml_parser_t *p, const char *text, size_t len)
{
	if (p->error != YAML_READER_ERROR)
		return line_of(p->problem_mark);
	unsigned line = 1;
	for (size_t i = 0; i < p->problem_offset && i < len; i++)
		line += text[i] == '\n';
	return line;
}

static qg_err
read_events(reader *rd, yaml_parser_t *p, const char *text, size_t len)
{
	yaml_event_t e;
	bool end = false;
	while (!end) {
		if (yaml_parser_parse(p, &e) == 0) {
			if (p->error == YAML_MEMORY_ERROR)
				return QG_E_NOMEM;
			qg_cfg_problem_at(rd->report, error_line(p, text, len), "syntax",
					  "is not YAML: %s%s%s",
					  p->problem == NULL ? "?" : p->problem,
					  p->context == NULL ? "" : " ",
					  p->context == NULL ? "" : p->context);
			return QG_E_PARSE;
		}
		end = e.type == YAML_STREAM_END_EVENT;
		const qg_err err = on_event(rd, &e);
		yaml_event_delete(&e);
		if (err != QG_OK)
			return err;
	}
	return QG_OK;
}

qg_err
qg_cfg_parse(cfg_report *r, cfg_mem *m, const char *text, size_t len, cfg_node **root)
{
	yaml_parser_t p;
	reader rd = {.report = r, .mem = m};
	if (yaml_parser_initialize(&p) == 0)
		return QG_E_NOMEM;
	yaml_parser_set_encoding(&p, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&p, (const unsigned char *)text, len);
	const qg_err err = read_events(&rd, &p, text, len);
	yaml_parser_delete(&p);
	if (err != QG_OK)
		return err;
	if (rd.root == NULL) /* nothing but comments: everything required is missing */
		rd.root = qg_cfg_node(m, NULL, CFG_MAP, NULL, 1);
	if (rd.root == NULL)
		return QG_E_NOMEM;
	*root = rd.root;
	return QG_OK;
}

/* --- tree to text -------------------------------------------------------------- */

typedef struct text_buffer {
	cfg_mem *mem;
	char *data;
	size_t len, room;
} text_buffer;

static int
append_text(void *ctx, unsigned char *bytes, size_t n)
{
	text_buffer *const b = ctx;
	if (n > b->room - b->len) {
		const size_t room = 2 * b->room + n;
		char *more = qg_cfg_resize(b->mem, b->data, room);
		if (more == NULL)
			return 0;
		b->data = more;
		b->room = room;
	}
	memcpy(b->data + b->len, bytes, n);
	b->len += n;
	return 1;
}

/* libyaml takes its texts as unsigned char that it does not change. */
static bool
emit_text(yaml_emitter_t *em, cfg_mem *m, const char *text)
{
	yaml_event_t e;
	const size_t len = strlen(text);
	unsigned char *const copy = (unsigned char *)qg_cfg_copy(m, text, len);
	return copy != NULL &&
	       yaml_scalar_event_initialize(&e, NULL, NULL, copy, (int)len, 1, 1,
					    YAML_DOUBLE_QUOTED_SCALAR_STYLE) &&
	       yaml_emitter_emit(em, &e);
}

static bool
emit_node(yaml_emitter_t *em, cfg_mem *m, const cfg_node *n)
{
	yaml_event_t e;
	if (n->name != NULL && !emit_text(em, m, n->name))
		return false;
	if (n->kind == CFG_SCALAR)
		return emit_text(em, m, n->text);
	const bool map = n->kind == CFG_MAP;
	if (map ? !yaml_mapping_start_event_initialize(&e, NULL, NULL, 1, YAML_FLOW_MAPPING_STYLE)
		: !yaml_sequence_start_event_initialize(&e, NULL, NULL, 1, YAML_FLOW_SEQUENCE_STYLE))
		return false;
	if (!yaml_emitter_emit(em, &e))
		return false;
	for (const cfg_node *child = n->first; child != NULL; child = child->next)
		if (!emit_node(em, m, child))
			return false;
	if (map ? !yaml_mapping_end_event_initialize(&e) : !yaml_sequence_end_event_initialize(&e))
		return false;
	return yaml_emitter_emit(em, &e);
}

static bool
emit_tree(yaml_emitter_t *em, cfg_mem *m, const cfg_node *root)
{
	yaml_event_t e;
	return yaml_stream_start_event_initialize(&e, YAML_UTF8_ENCODING) && yaml_emitter_emit(em, &e) &&
	       yaml_document_start_event_initialize(&e, NULL, NULL, NULL, 1) && yaml_emitter_emit(em, &e) &&
	       emit_node(em, m, root) &&
	       yaml_document_end_event_initialize(&e, 1) && yaml_emitter_emit(em, &e) &&
	       yaml_stream_end_event_initialize(&e) && yaml_emitter_emit(em, &e);
}

static qg_err
tree_text(cfg_mem *m, const cfg_node *root, text_buffer *out)
{
	yaml_emitter_t em;
	if (yaml_emitter_initialize(&em) == 0)
		return QG_E_NOMEM;
	yaml_emitter_set_output(&em, append_text, out);
	yaml_emitter_set_unicode(&em, 1);
	yaml_emitter_set_width(&em, -1);
	const bool done = emit_tree(&em, m, root) && yaml_emitter_flush(&em);
	yaml_emitter_delete(&em);
	return done ? QG_OK : QG_E_NOMEM;
}

/* --- text to struct -------------------------------------------------------------- */

static const struct {
	cyaml_type_e type;
	unsigned flags;
} cyaml_types[CFG_TYPES] = {
	[CFG_SECTION] = {CYAML_MAPPING, CYAML_FLAG_DEFAULT},
	[CFG_ENTRIES] = {CYAML_SEQUENCE, CYAML_FLAG_POINTER},
	[CFG_PATTERNS] = {CYAML_SEQUENCE, CYAML_FLAG_POINTER},
	[CFG_NAMES] = {CYAML_SEQUENCE, CYAML_FLAG_POINTER},
	[CFG_UINT] = {CYAML_UINT, CYAML_FLAG_DEFAULT},
	[CFG_BOOL] = {CYAML_BOOL, CYAML_FLAG_DEFAULT},
	[CFG_CHOICE] = {CYAML_ENUM, CYAML_FLAG_STRICT},
	[CFG_TEXT] = {CYAML_STRING, CYAML_FLAG_POINTER},
	[CFG_TOKEN] = {CYAML_STRING, CYAML_FLAG_POINTER},
	[CFG_NAME] = {CYAML_STRING, CYAML_FLAG_POINTER},
	[CFG_PATTERN] = {CYAML_STRING, CYAML_FLAG_POINTER},
	[CFG_PATH] = {CYAML_STRING, CYAML_FLAG_POINTER},
	[CFG_SECRET_PATH] = {CYAML_STRING, CYAML_FLAG_POINTER},
	[CFG_KEY_PATH] = {CYAML_STRING, CYAML_FLAG_POINTER},
	[CFG_LISTEN] = {CYAML_STRING, CYAML_FLAG_POINTER},
	[CFG_ENDPOINT] = {CYAML_STRING, CYAML_FLAG_POINTER},
	[CFG_URL] = {CYAML_STRING, CYAML_FLAG_POINTER},
	[CFG_HTTPS] = {CYAML_STRING, CYAML_FLAG_POINTER},
	[CFG_UUID] = {CYAML_STRING, CYAML_FLAG_POINTER},
	[CFG_FINGERPRINT] = {CYAML_STRING, CYAML_FLAG_POINTER},
};

static const cyaml_schema_value_t cyaml_text = {
	.type = CYAML_STRING,
	.flags = CYAML_FLAG_POINTER,
	.data_size = sizeof(char),
	.string = {.min = 0, .max = CYAML_UNLIMITED},
};

static const cyaml_schema_field_t *cyaml_fields(cfg_mem *m, const cfg_option *options);

static bool
set_choices(cfg_mem *m, const cfg_choice *choices, cyaml_schema_value_t *v)
{
	uint32_t n = 0;
	while (choices[n].name != NULL)
		n++;
	cyaml_strval_t *strings = qg_cfg_alloc(m, n * sizeof *strings);
	for (uint32_t i = 0; strings != NULL && i < n; i++)
		strings[i] = (cyaml_strval_t){.str = choices[i].name, .val = choices[i].value};
	v->enumeration.strings = strings;
	v->enumeration.count = n;
	return strings != NULL;
}

static bool
set_list(cfg_mem *m, const cfg_option *o, cyaml_schema_field_t *f)
{
	f->count_offset = (uint32_t)o->also;
	f->count_size = sizeof(size_t);
	f->value.sequence.max = CYAML_UNLIMITED;
	f->value.sequence.entry = &cyaml_text;
	if (o->type != CFG_ENTRIES)
		return true;
	cyaml_schema_value_t *entry = qg_cfg_alloc(m, sizeof *entry);
	if (entry == NULL)
		return false;
	entry->type = CYAML_MAPPING;
	entry->data_size = (uint32_t)o->size;
	entry->mapping.fields = cyaml_fields(m, o->fields);
	f->value.sequence.entry = entry;
	return entry->mapping.fields != NULL;
}

static bool
set_field(cfg_mem *m, const cfg_option *o, cyaml_schema_field_t *f)
{
	f->key = o->name;
	f->data_offset = (uint32_t)o->offset;
	f->value.type = cyaml_types[o->type].type;
	f->value.flags = (enum cyaml_flag)(cyaml_types[o->type].flags | CYAML_FLAG_OPTIONAL);
	f->value.data_size = (uint32_t)o->size;
	switch (f->value.type) {
	case CYAML_STRING:
		f->value.data_size = sizeof(char);
		f->value.string.max = CYAML_UNLIMITED;
		return true;
	case CYAML_ENUM:
		return set_choices(m, o->choices, &f->value);
	case CYAML_SEQUENCE:
		return set_list(m, o, f);
	case CYAML_MAPPING:
		f->value.mapping.fields = cyaml_fields(m, o->fields);
		return f->value.mapping.fields != NULL;
	default:
		return true;
	}
}

/* What an option gives beside itself: the second half of an endpoint, or that a
 * section is there. The checks gave the tree a member for it. */
static bool
set_also(cfg_mem *m, const cfg_option *o, cyaml_schema_field_t *f)
{
	f->key = qg_cfg_format(m, "%s %s", o->name, o->marked ? "given" : "port");
	f->data_offset = (uint32_t)o->also;
	f->value.type = o->marked ? CYAML_BOOL : CYAML_UINT;
	f->value.flags = CYAML_FLAG_OPTIONAL;
	f->value.data_size = (uint32_t)(o->marked ? sizeof(bool) : sizeof(unsigned));
	return f->key != NULL;
}

/* libcyaml's schema from ours; NULL without memory. */
static const cyaml_schema_field_t *
cyaml_fields(cfg_mem *m, const cfg_option *options)
{
	size_t n = 0;
	cyaml_schema_field_t *fields = qg_cfg_alloc(m, (2 * QG_CFG_OPTIONS_MAX + 1) * sizeof *fields);
	for (const cfg_option *o = options; fields != NULL && o->name != NULL; o++) {
		if (!set_field(m, o, &fields[n++]))
			return NULL;
		if ((o->marked || o->type == CFG_LISTEN || o->type == CFG_ENDPOINT) &&
		    !set_also(m, o, &fields[n++]))
			return NULL;
	}
	return fields;
}

/* A load that fails gives everything back, but what two fields hold (set_also)
 * would be given back twice: all goes at once, with the rest of ctx. */
static void *
cyaml_memory(void *ctx, void *p, size_t n)
{
	return n > 0 ? qg_cfg_resize(ctx, p, n) : NULL;
}

/* libcyaml does not tell why libyaml failed; on a text that libyaml wrote it
 * can only be memory. */
static bool
is_out_of_memory(cyaml_err_t err)
{
	return err == CYAML_ERR_OOM || err == CYAML_ERR_LIBYAML_PARSER_INIT ||
	       err == CYAML_ERR_LIBYAML_PARSER;
}

qg_err
qg_cfg_bind(cfg_report *r, const cfg_node *root, cfg_mem *m, qg_config *out)
{
	text_buffer text = {.mem = r->mem};
	qg_config *loaded = NULL;
	const cyaml_config_t config = {.mem_fn = cyaml_memory, .mem_ctx = m, .flags = CYAML_CFG_NO_ALIAS};
	const cyaml_schema_value_t schema = {
		.type = CYAML_MAPPING,
		.flags = CYAML_FLAG_POINTER,
		.data_size = sizeof(qg_config),
		.mapping = {.fields = cyaml_fields(r->mem, qg_cfg_schema)},
	};
	if (schema.mapping.fields == NULL || tree_text(r->mem, root, &text) != QG_OK)
		return QG_E_NOMEM;
	const cyaml_err_t err = cyaml_load_data((const uint8_t *)text.data, text.len, &config, &schema,
						(cyaml_data_t **)&loaded, NULL);
	if (is_out_of_memory(err))
		return QG_E_NOMEM;
	if (err != CYAML_OK) {
		qg_cfg_problem_at(r, 1, "file", "passed every check but could not be loaded: %s",
				  cyaml_strerror(err));
		return QG_E_PARSE;
	}
	*out = *loaded;
	return QG_OK;
}
