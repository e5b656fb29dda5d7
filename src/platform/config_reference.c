/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <string.h>

#include "config_internal.h"

#define PATH_ROOM 128

static const char *const intro[] = {
	"# Configuration",
	"",
	"<!-- Made by `qkdgate config-reference` from src/platform/config_schema.c. -->",
	"",
	"The configuration is one YAML file of at most 16 MiB. `qkdgate check-config FILE` reports everything",
	"that is wrong with it in one go, each problem as `FILE:LINE: OPTION: text`. The daemon does not",
	"start with such a file.",
	"",
	"- Unknown and repeated options are errors, and so are anchors, aliases and tags.",
	"- Relative file names are taken from the folder of the configuration file.",
	"- Times and sizes have their unit in the name. Numbers are whole, decimal and without quotes.",
	"- In a pattern `*` stands for any run of characters, everything else for itself.",
	"- The files of certificates, private keys, authorities and revocation lists are read anew with every",
	"  reload. What else a reload (SIGHUP, `qkdgatectl reload`) puts in force is marked; the rest needs a restart.",
	"- Private keys and the master key are refused when anyone but their owner can read them.",
	"",
	"`${NAME}` in a value stands for the environment variable `NAME`; it is an error when that is not set.",
	"`${NAME:-DEFAULT}` takes the default where it is not set or empty, and `$$` stands for a dollar; any",
	"other `$` is an error. What comes in is plain text: no YAML, no further variables, no control",
	"characters. Names of options hold no variables. Within `[]` and `{}` YAML wants quotes around `${NAME}`.",
	"",
	"Secrets never stand in variables, only in files. For private keys and the master key a variable may",
	"hold where the file is, as `/PATH` or `secret:NAME`; anything else is refused and not shown.",
	"`secret:NAME` is the file `NAME` in `/run/secrets` (or the folder that `QKDGATE_SECRETS` names), where",
	"container engines mount secrets. Below that folder, and only there, a secret of mode 0440 is taken too if",
	"its group is one of the process's: [containers.md](containers.md).",
	"",
	"A complete small file: one SAE here, one at the neighbour, and a stream in each direction.",
	"",
	"```yaml",
	"kme:",
	"  id: KME-A",
	"sae_listener:",
	"  listen: 192.0.2.1:8443",
	"  certificate: pki/kme-a.pem",
	"  key: pki/kme-a.key",
	"  ca: pki/ca.pem",
	"kms_listener:",
	"  listen: 192.0.2.1:8444",
	"  certificate: pki/kme-a.pem",
	"  key: pki/kme-a.key",
	"  ca: pki/ca.pem",
	"store:",
	"  database: /var/lib/qkdgate/keys.db",
	"  anchor: /var/lib/qkdgate-anchor/anchor",
	"  master_key: credential:qkdgate-master",
	"  key_ring: /var/lib/qkdgate-anchor/key-ring",
	"audit:",
	"  file: /var/log/qkdgate/audit.log",
	"saes:",
	"  - id: sae-alice",
	"    certificate: {uri: \"urn:sae:sae-alice\"}",
	"directory:",
	"  - {sae: sae-bob, kme: KME-B}",
	"neighbours:",
	"  - id: KME-B",
	"    url: https://kme-b.example:8444",
	"    certificate: {dns: kme-b.example}",
	"streams:",
	"  - name: a-to-b",
	"    neighbour: KME-B",
	"    direction: outbound",
	"    source:",
	"      profile: bin-a",
	"      address: qkd-a.example:25575",
	"      certificate: pki/kme-a.pem",
	"      key: pki/kme-a.key",
	"      ca: pki/ca.pem",
	"      source_uri: qkd://gateway@kme-a",
	"      destination_uri: qkd://gateway@kme-b",
	"  - name: b-to-a",
	"    neighbour: KME-B",
	"    direction: inbound",
	"    source:",
	"      profile: bin-a",
	"      address: qkd-a.example:25575",
	"      certificate: pki/kme-a.pem",
	"      key: pki/kme-a.key",
	"      ca: pki/ca.pem",
	"      source_uri: qkd://gateway-in@kme-a",
	"      destination_uri: qkd://gateway-in@kme-b",
	"policy:",
	"  - master: sae-alice",
	"    slaves: [sae-bob]",
	"```",
};

static void
print_choices(const cfg_choice *choices, FILE *out)
{
	for (const cfg_choice *c = choices; c->name != NULL; c++)
		(void)fprintf(out, "%s`%s`", c == choices ? "" : ", ", c->name);
}

static bool
is_nested(const cfg_option *o)
{
	return o->type == CFG_SECTION || o->type == CFG_ENTRIES;
}

static bool
has_length(const cfg_option *o)
{
	switch (o->type) {
	case CFG_TEXT:
	case CFG_TOKEN:
	case CFG_NAME:
	case CFG_PATTERN:
	case CFG_HTTPS:
		return true;
	default:
		return false;
	}
}

static void
print_range(const cfg_option *o, FILE *out)
{
	if (o->type == CFG_CHOICE) {
		print_choices(o->choices, out);
		return;
	}
	(void)fputs(qg_cfg_types[o->type].what, out);
	if (o->type == CFG_UINT)
		(void)fprintf(out, ", %" PRIu64 " to %" PRIu64, o->min, o->max);
	if (o->unit != NULL)
		(void)fprintf(out, " %s", o->unit);
	if (o->step > 0)
		(void)fprintf(out, ", a multiple of %" PRIu64, o->step);
	if (has_length(o))
		(void)fprintf(out, ", at most %" PRIu64 " bytes", o->max);
}

static void
print_default(const cfg_option *o, FILE *out)
{
	if (o->required)
		(void)fputs("required", out);
	else if (o->preset != NULL)
		(void)fprintf(out, "`%s`", o->preset);
	else
		(void)fputs(o->note == NULL ? "none" : o->note, out);
}

/* The path as it stands in reports, but with [] for the place in a list. */
static void
print_table(const char *path, const cfg_option *section, FILE *out)
{
	char inner[PATH_ROOM];
	(void)fprintf(out, "\n## %s%s\n\n%s", path, section->type == CFG_ENTRIES ? "[]" : "", section->help);
	if (!section->required && section->type == CFG_SECTION && section->note != NULL)
		(void)fprintf(out, " Default: %s.", section->note);
	(void)fputs("\n\n| Option | Value | Default | Meaning |\n|---|---|---|---|\n", out);
	for (const cfg_option *o = section->fields; o->name != NULL; o++) {
		(void)fprintf(out, "| `%s` | ", o->name);
		print_range(o, out);
		(void)fputs(" | ", out);
		print_default(o, out);
		(void)fprintf(out, " | %s%s |\n", o->help, o->live ? " *A reload puts it in force.*" : "");
	}
	for (const cfg_option *o = section->fields; o->name != NULL; o++) {
		if (!is_nested(o))
			continue;
		const int n = snprintf(inner, sizeof inner, "%s%s.%s", path,
				       section->type == CFG_ENTRIES ? "[]" : "", o->name);
		if (n > 0 && (size_t)n < sizeof inner)
			print_table(inner, o, out);
	}
}

static void
print_sections(FILE *out)
{
	(void)fputs("\n## Sections\n\n| Section | Value | Needed | Meaning |\n|---|---|---|---|\n", out);
	for (const cfg_option *o = qg_cfg_schema; o->name != NULL; o++)
		(void)fprintf(out, "| `%s` | %s | %s | %s%s |\n", o->name, qg_cfg_types[o->type].what,
			      o->required ? "required" : "optional", o->help,
			      o->live ? " *A reload puts it in force.*" : "");
}

void
qg_config_print_reference(FILE *out)
{
	for (size_t i = 0; i < sizeof intro / sizeof intro[0]; i++)
		(void)fprintf(out, "%s\n", intro[i]);
	print_sections(out);
	for (const cfg_option *o = qg_cfg_schema; o->name != NULL; o++)
		print_table(o->name, o, out);
}
