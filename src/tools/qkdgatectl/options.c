/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl_internal.h"
#include "qkdgate/log.h"
#include "qkdgate/nearest.h"
#include "qkdgate/version.h"

#define TIMEOUT_S 30
#define HEALTH_TIMEOUT_S 3
#define DEFAULT_SOCKET "/run/qkdgate/admin.sock"

enum {
	SOCKET = 256, URL, CERT, KEY, CA, JSON, WATCH, NO_COLOR, TIMEOUT, GRACE, CONFIRM, READY, MASTER, SLAVE, HELP, VERSION,
	LINES, ACT, SAE, ID, SINCE, MASTER_KEY, KEY_RING, HEAD, FROM, TO, CSV, AFTER
};

static const struct option long_options[] = {
	{"socket", required_argument, NULL, SOCKET},
	{"url", required_argument, NULL, URL},
	{"cert", required_argument, NULL, CERT},
	{"key", required_argument, NULL, KEY},
	{"ca", required_argument, NULL, CA},
	{"json", no_argument, NULL, JSON},
	{"watch", optional_argument, NULL, WATCH},
	{"no-color", no_argument, NULL, NO_COLOR},
	{"timeout", required_argument, NULL, TIMEOUT},
	{"grace", required_argument, NULL, GRACE},
	{"confirm", required_argument, NULL, CONFIRM},
	{"ready", no_argument, NULL, READY},
	{"master", required_argument, NULL, MASTER},
	{"slave", required_argument, NULL, SLAVE},
	{"lines", required_argument, NULL, LINES},
	{"act", required_argument, NULL, ACT},
	{"sae", required_argument, NULL, SAE},
	{"id", required_argument, NULL, ID},
	{"since", required_argument, NULL, SINCE},
	{"master-key", required_argument, NULL, MASTER_KEY},
	{"key-ring", required_argument, NULL, KEY_RING},
	{"head", required_argument, NULL, HEAD},
	{"after", required_argument, NULL, AFTER},
	{"from", required_argument, NULL, FROM},
	{"to", required_argument, NULL, TO},
	{"csv", no_argument, NULL, CSV},
	{"help", no_argument, NULL, HELP},
	{"version", no_argument, NULL, VERSION},
	{NULL, 0, NULL, 0},
};

const char *const ctl_option_names[] = {
	"--socket", "--url", "--cert", "--key", "--ca", "--json", "--watch", "--no-color", "--timeout", "--grace",
	"--confirm", "--ready", "--master", "--slave", "--lines", "--act", "--sae", "--id", "--since",
	"--master-key", "--key-ring", "--head", "--after", "--from", "--to", "--csv", "--help", "--version", NULL,
};

void
ctl_usage(FILE *out)
{
	fprintf(out, "usage: qkdgatectl [OPTION...] COMMAND [ARGUMENT...]\n\n"
		     "The operator's command of a qkdgate. See qkdgatectl(1).\n\n");
	for (size_t i = 0; i < ctl_n_commands; i++)
		fprintf(out, "  %-13s %-16s %s\n", ctl_commands[i].name, ctl_commands[i].arguments, ctl_commands[i].help);
	fprintf(out,
		"\nWhere the gateway is:\n"
		"  --socket PATH    Unix socket (default: $QKDGATE_SOCKET, else " DEFAULT_SOCKET ")\n"
		"  --url URL        https://HOST:PORT of admin.listener, with --ca, --cert and --key FILE\n"
		"  --timeout S      seconds to wait for an answer (default 30; health: 3)\n"
		"How it is shown:\n"
		"  --json           for scripts\n"
		"  --watch[=S]      again and again, every S seconds (default 2)\n"
		"  --no-color       also on a terminal\n"
		"Of single commands:\n"
		"  --ready          health: whether it can deliver keys\n"
		"  --grace S        drain: until it stops (default 5)\n"
		"  --confirm KME    zeroize: the KME ID of the gateway\n"
		"  --master SAE, --slave SAE\n"
		"                   doctor: takes a key from one to the other; SAE is ID,URL,CERTIFICATE,KEY\n"
		"  --lines N, --act ACT, --sae SAE, --id KEY_ID, --since TIME\n"
		"                   audit: the newest N lines (default 50) of that kind; TIME also as 10min, 2h, 1d\n"
		"  --master-key FILE, --key-ring FILE, --head NUMBER:TAG\n"
		"                   audit verify of files: their key, and a line that the log must have\n"
		"  --lines N, --after ROW\n"
		"                   transfers: so many keys (default 50, at most 100), behind that row\n"
		"  --from DAY, --to DAY, --csv\n"
		"                   accounting: days as 2026-01-31 (default: the last 31), as CSV\n"
		"  --help, --version\n"
		"\nExit status: 0 done or healthy, 1 refused or not healthy, 2 wrong usage,\n"
		"3 the gateway cannot be reached, 4 not allowed.\n");
}

static bool
number(const char *text, unsigned most, unsigned *out)
{
	char *end = NULL;
	errno = 0;
	const unsigned long v = strtoul(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || v > most) {
		fprintf(stderr, "qkdgatectl: %s: give a number up to %u\n", qg_log_safe(text), most);
		return false;
	}
	*out = (unsigned)v;
	return true;
}

/* ID,URL,CERTIFICATE,KEY */
static bool
read_sae(const char *text, ctl_sae *out)
{
	const char **parts[] = {&out->id, &out->url, &out->certificate, &out->key};
	free(out->text);
	out->text = strdup(text);
	char *at = out->text;
	for (size_t i = 0; i < sizeof parts / sizeof parts[0] && at != NULL; i++) {
		*parts[i] = at;
		at = strchr(at, ',');
		if (at != NULL)
			*at++ = '\0';
		else if (i < 3)
			break;
	}
	if (out->text != NULL && at == NULL && out->key != NULL && out->key[0] != '\0')
		return true;
	fprintf(stderr, "qkdgatectl: %s: give ID,URL,CERTIFICATE,KEY\n", qg_log_safe(text));
	return false;
}

/* Options that are texts. */
static const char **
text_option(ctl_options *o, int option)
{
	switch (option) {
	case SOCKET:
		return &o->place.socket;
	case URL:
		return &o->place.url;
	case CERT:
		return &o->place.tls.certificate;
	case KEY:
		return &o->place.tls.key;
	case CA:
		return &o->place.tls.ca;
	case CONFIRM:
		return &o->confirm;
	case ACT:
		return &o->act;
	case SAE:
		return &o->sae;
	case ID:
		return &o->id;
	case SINCE:
		return &o->since;
	case MASTER_KEY:
		return &o->master_key;
	case KEY_RING:
		return &o->key_ring;
	case HEAD:
		return &o->head;
	case AFTER:
		return &o->after;
	case FROM:
		return &o->from;
	case TO:
		return &o->to;
	default:
		return NULL;
	}
}

static bool
take_option(ctl_options *o, int option)
{
	const char **text = text_option(o, option);
	if (text != NULL) {
		*text = optarg;
		return true;
	}
	switch (option) {
	case JSON:
		o->json = true;
		return true;
	case WATCH:
		o->watch_s = 2;
		return optarg == NULL || number(optarg, 86400, &o->watch_s);
	case CSV:
		o->csv = true;
		return true;
	case NO_COLOR:
		o->color = false;
		return true;
	case TIMEOUT:
		return number(optarg, 3600, &o->timeout_s);
	case GRACE:
		return number(optarg, 86400, &o->grace_s);
	case LINES:
		return number(optarg, 1000, &o->lines);
	case READY:
		o->ready = true;
		return true;
	case MASTER:
		return read_sae(optarg, &o->master);
	case SLAVE:
		return read_sae(optarg, &o->slave);
	default:
		return false;
	}
}

/* getopt has said what is wrong; here is what may have been meant. */
static void
suggest_option(const char *given)
{
	const char *near;
	size_t n = 0;
	while (ctl_option_names[n] != NULL)
		n++;
	near = given != NULL ? qg_nearest(given, ctl_option_names, n) : NULL;
	if (near != NULL && strcmp(near, given) != 0)
		fprintf(stderr, "qkdgatectl: is %s meant?\n", near);
}

static bool
check_place(const ctl_options *o)
{
	const qg_tls_files *f = &o->place.tls;
	if (o->place.url == NULL && (f->certificate != NULL || f->key != NULL)) {
		fprintf(stderr, "qkdgatectl: --cert and --key go with --url\n");
		return false;
	}
	if (o->place.url != NULL && (f->certificate == NULL || f->key == NULL || f->ca == NULL)) {
		fprintf(stderr, "qkdgatectl: --url needs --ca, --cert and --key\n");
		return false;
	}
	if ((o->master.id != NULL || o->slave.id != NULL) &&
	    (o->master.id == NULL || o->slave.id == NULL || f->ca == NULL)) {
		fprintf(stderr, "qkdgatectl: --master and --slave go together, and need --ca\n");
		return false;
	}
	return true;
}

int
ctl_read_options(int argc, char **argv, ctl_options *o, bool *end)
{
	const char *socket = getenv("QKDGATE_SOCKET");
	*o = (ctl_options){.place.socket = socket != NULL && socket[0] != '\0' ? socket : DEFAULT_SOCKET,
			   .place.tls.min_version = QG_TLS_1_2,
			   .color = isatty(STDOUT_FILENO) && getenv("NO_COLOR") == NULL,
			   .timeout_s = 0,
			   .grace_s = 5};
	*end = true;
	for (int option; (option = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
		if (option == HELP) {
			ctl_usage(stdout);
			return CTL_DONE;
		}
		if (option == VERSION) {
			printf("qkdgatectl " QG_VERSION "\n");
			return CTL_DONE;
		}
		if (option == '?')
			suggest_option(optind > 0 ? argv[optind - 1] : NULL);
		if (!take_option(o, option))
			return CTL_USAGE;
	}
	if (optind >= argc) {
		ctl_usage(stderr);
		return CTL_USAGE;
	}
	o->command = argv[optind];
	o->arguments = argv + optind + 1;
	o->n_arguments = argc - optind - 1;
	/* Who asks for health wants to know soon, also of one that stands still. */
	if (o->timeout_s == 0)
		o->timeout_s = strcmp(o->command, "health") == 0 ? HEALTH_TIMEOUT_S : TIMEOUT_S;
	*end = false;
	return check_place(o) ? CTL_DONE : CTL_USAGE;
}

void
ctl_free_options(ctl_options *o)
{
	free(o->master.text);
	free(o->slave.text);
}
