/* SPDX-License-Identifier: Apache-2.0 */
#include "get_internal.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
	"usage: qkdgate-get --url URL --ca FILE --cert FILE --key FILE\n"
	"           (--slave SAE [--size BITS] [--number N] [--wait SECONDS] | --master SAE --id KEY_ID...)\n"
	"           [--format FORMAT] [--output FILE] [--timeout SECONDS]\n"
	"       qkdgate-get ... --slave SAE --status\n"
	"       qkdgate-get --help\n"
	"\n"
	"Gets keys from a key manager that serves ETSI GS QKD 014. With --slave new keys to share with that\n"
	"SAE; it gets them by their IDs with --master, the SAE that asked first. The keys go to standard output\n"
	"and their IDs to standard error; with --output the keys go to FILE (mode 0600) and the IDs to standard\n"
	"output. Nothing is written unless all of it can be.\n"
	"\n"
	"formats:\n";

enum { URL = 256, CA, CERT, KEY, SLAVE, MASTER, ID, SIZE, NUMBER, WAIT, FORMAT, OUTPUT, TIMEOUT, STATUS, HELP };

static const struct option long_options[] = {
	{"url", required_argument, NULL, URL},       {"ca", required_argument, NULL, CA},
	{"cert", required_argument, NULL, CERT},     {"key", required_argument, NULL, KEY},
	{"slave", required_argument, NULL, SLAVE},   {"master", required_argument, NULL, MASTER},
	{"id", required_argument, NULL, ID},         {"size", required_argument, NULL, SIZE},
	{"number", required_argument, NULL, NUMBER}, {"wait", required_argument, NULL, WAIT},
	{"format", required_argument, NULL, FORMAT}, {"output", required_argument, NULL, OUTPUT},
	{"timeout", required_argument, NULL, TIMEOUT}, {"status", no_argument, NULL, STATUS},
	{"help", no_argument, NULL, HELP},           {NULL, 0, NULL, 0},
};

void
get_usage(void)
{
	fputs(usage, stdout);
	for (size_t i = 0; i < n_get_formats; i++)
		printf("  %-11s %s%s\n", get_formats[i].name, get_formats[i].help, i == 0 ? " (default)" : "");
}

static bool
number(const char *text, unsigned most, unsigned *out)
{
	char *end = NULL;
	errno = 0;
	unsigned long v = strtoul(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || v == 0 || v > most)
		return false;
	*out = (unsigned)v;
	return true;
}

static bool
format(const char *name, const get_format **out)
{
	for (size_t i = 0; i < n_get_formats; i++) {
		if (strcmp(get_formats[i].name, name) == 0) {
			*out = &get_formats[i];
			return true;
		}
	}
	return false;
}

static bool
seconds(const char *text, unsigned *out_ms)
{
	unsigned s = 0;
	if (!number(text, 86400, &s))
		return false;
	*out_ms = s * 1000;
	return true;
}

static bool
option(get_options *o, int which)
{
	switch (which) {
	case URL: o->url = optarg; return true;
	case CA: o->files.ca = optarg; return true;
	case CERT: o->files.certificate = optarg; return true;
	case KEY: o->files.key = optarg; return true;
	case SLAVE: o->slave = optarg; return true;
	case MASTER: o->master = optarg; return true;
	case ID: o->ids[o->n_ids++] = optarg; return true;
	case SIZE: return number(optarg, QG_GET_KEY_MAX * 8, &o->size_bits);
	case NUMBER: return number(optarg, 1024, &o->number);
	case WAIT: return number(optarg, 86400, &o->wait_s);
	case FORMAT: return format(optarg, &o->format);
	case OUTPUT: o->output = optarg; return true;
	case TIMEOUT: return seconds(optarg, &o->timeout_ms);
	case STATUS: o->status = true; return true;
	default: return false;
	}
}

/* What is missing or does not go together; NULL: nothing. */
static const char *
fault_of(const get_options *o)
{
	if (o->url == NULL || o->files.ca == NULL || o->files.certificate == NULL || o->files.key == NULL)
		return "--url, --ca, --cert and --key are needed";
	if ((o->slave == NULL) == (o->master == NULL))
		return "one of --slave and --master is needed";
	if ((o->master != NULL) != (o->n_ids > 0))
		return "--id goes with --master, and --master needs one";
	if (o->master != NULL && (o->number != 0 || o->size_bits != 0 || o->wait_s != 0 || o->status))
		return "--size, --number, --wait and --status go with --slave";
	if (o->status && (o->number != 0 || o->size_bits != 0 || o->output != NULL))
		return "--status gets no keys";
	if (!o->format->lines && (o->number > 1 || o->n_ids > 1))
		return "that format is for one key";
	if (o->format->size_bits != 0 && o->size_bits != 0 && o->size_bits != o->format->size_bits)
		return "keys of that format have 256 bits";
	return NULL;
}

get_parsed
get_parse(int argc, char **argv, get_options *out)
{
	int which;
	const char *fault;
	*out = (get_options){.format = &get_formats[0]};
	out->ids = calloc((size_t)argc + 1, sizeof *out->ids);
	if (out->ids == NULL)
		return GET_WRONG;
	while ((which = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (which == HELP)
			return GET_HELP;
		if (which == '?')
			return GET_WRONG; /* getopt has said why */
		if (!option(out, which)) {
			fprintf(stderr, "qkdgate-get: %s is nothing for that option\n", optarg);
			return GET_WRONG;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "qkdgate-get: %s is no option\n", argv[optind]);
		return GET_WRONG;
	}
	fault = fault_of(out);
	if (fault == NULL) {
		if (out->size_bits == 0)
			out->size_bits = out->format->size_bits;
		return GET_GO;
	}
	fprintf(stderr, "qkdgate-get: %s\n", fault);
	return GET_WRONG;
}
