/* SPDX-License-Identifier: Apache-2.0 */
#include "sim_internal.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
	"usage: qkdgate-sim --listen ADDRESS:PORT (--profile PROFILE|any | --dialect a|b)\n"
	"           (--link-listen ADDRESS:PORT | --link-connect ADDRESS:PORT)\n"
	"           [--certificate FILE --key FILE --ca FILE [--require-client-certificate]]\n"
	"           [--push | --push-to HOST:PORT [--push-drop]]\n"
	"           [--rate-bps N] [--latency-ms N] [--outage-every-s N --outage-for-s N]\n"
	"           [--mismatch-every N] [--store-chunks N]\n"
	"       qkdgate-sim --help\n"
	"One end of a simulated QKD link. Not for production: see qkdgate-sim(1).\n";

enum {
	LISTEN = 256, PROFILE, DIALECT, PUSH, PUSH_TO, PUSH_DROP, LINK_LISTEN, LINK_CONNECT, CERTIFICATE, KEY,
	CA, REQUIRE, RATE, LATENCY,
	OUTAGE_EVERY, OUTAGE_FOR, MISMATCH, STORE, HELP
};

static const struct option long_options[] = {
	{"listen", required_argument, NULL, LISTEN},
	{"profile", required_argument, NULL, PROFILE},
	{"dialect", required_argument, NULL, DIALECT},
	{"push", no_argument, NULL, PUSH},
	{"push-to", required_argument, NULL, PUSH_TO},
	{"push-drop", no_argument, NULL, PUSH_DROP},
	{"link-listen", required_argument, NULL, LINK_LISTEN},
	{"link-connect", required_argument, NULL, LINK_CONNECT},
	{"certificate", required_argument, NULL, CERTIFICATE},
	{"key", required_argument, NULL, KEY},
	{"ca", required_argument, NULL, CA},
	{"require-client-certificate", no_argument, NULL, REQUIRE},
	{"rate-bps", required_argument, NULL, RATE},
	{"latency-ms", required_argument, NULL, LATENCY},
	{"outage-every-s", required_argument, NULL, OUTAGE_EVERY},
	{"outage-for-s", required_argument, NULL, OUTAGE_FOR},
	{"mismatch-every", required_argument, NULL, MISMATCH},
	{"store-chunks", required_argument, NULL, STORE},
	{"help", no_argument, NULL, HELP},
	{NULL, 0, NULL, 0},
};

static bool
number(const char *text, uint64_t max, uint64_t *out)
{
	char *end = NULL;
	errno = 0;
	unsigned long long v = strtoull(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || v > max)
		return false;
	*out = v;
	return true;
}

static bool
number32(const char *text, uint32_t *out)
{
	uint64_t v = 0;
	if (!number(text, UINT32_MAX, &v))
		return false;
	*out = (uint32_t)v;
	return true;
}

/* "ADDRESS:PORT" or "[V6]:PORT". */
static bool
address(const char *text, sim_address *out)
{
	const char *colon = strrchr(text, ':');
	uint64_t port = 0;
	if (colon == NULL || !number(colon + 1, 65535, &port) || port == 0)
		return false;
	size_t n = (size_t)(colon - text);
	if (n >= 2 && text[0] == '[' && text[n - 1] == ']') {
		text++;
		n -= 2;
	}
	if (n == 0 || n >= sizeof out->host)
		return false;
	memcpy(out->host, text, n);
	out->host[n] = '\0';
	out->port = (unsigned)port;
	return true;
}

/* A profile by its name, or any; the dialects of `bin` also by their letter. */
static bool
profile(sim_options *o, const char *text, bool letter)
{
	static const char *const dialects[] = {"a", "bin-a", "b", "bin-b"};
	if (o->profile_given)
		return false;
	o->profile_given = true;
	for (size_t i = 0; letter && i < 4; i += 2)
		if (strcmp(text, dialects[i]) == 0)
			return (o->profile = qg_etsi004_profile_named(dialects[i + 1])) != NULL;
	if (!letter && strcmp(text, "any") == 0)
		return true;
	o->profile = letter ? NULL : qg_etsi004_profile_named(text);
	return o->profile != NULL;
}

static bool
link_address(sim_options *o, bool listens, const char *text)
{
	if (o->link.port != 0)
		return false; /* one of the two, once */
	o->link_listens = listens;
	return address(text, &o->link);
}

static bool
file(const char **out)
{
	*out = optarg;
	return true;
}

static bool
option(sim_options *o, int which)
{
	switch (which) {
	case LISTEN: return address(optarg, &o->listen);
	case PROFILE: return profile(o, optarg, false);
	case DIALECT: return profile(o, optarg, true);
	case PUSH: o->push = true; return true;
	case PUSH_TO: return address(optarg, &o->push_to);
	case PUSH_DROP: o->push_drop = true; return true;
	case LINK_LISTEN: return link_address(o, true, optarg);
	case LINK_CONNECT: return link_address(o, false, optarg);
	case CERTIFICATE: return file(&o->files.certificate);
	case KEY: return file(&o->files.key);
	case CA: return file(&o->files.ca);
	case REQUIRE: o->require_client_certificate = true; return true;
	case RATE: return number(optarg, (uint64_t)1 << 40, &o->rate_bps);
	case LATENCY: return number32(optarg, &o->latency_ms);
	case OUTAGE_EVERY: return number32(optarg, &o->outage_every_s);
	case OUTAGE_FOR: return number32(optarg, &o->outage_for_s);
	case MISMATCH: return number32(optarg, &o->mismatch_every);
	case STORE: return number32(optarg, &o->store_chunks);
	default: return false;
	}
}

/* What does not go together with pushing. */
static const char *
wrong_push(const sim_options *o)
{
	bool apart = o->profile != NULL && o->profile->push != NULL;
	if (o->push && (o->profile == NULL || (o->profile->modes & QG_ETSI004_PUSH) == 0 || apart))
		return "--push is for --profile json and json-netxpto";
	if (apart && (o->push_to.port == 0 || !o->tls))
		return "--profile http-push needs --push-to HOST:PORT, --certificate, --key and --ca";
	if (!apart && (o->push_to.port != 0 || o->push_drop))
		return "--push-to and --push-drop are for --profile http-push";
	return NULL;
}

/* What does not go together, as a text; NULL when all is well. */
static const char *
wrong(sim_options *o)
{
	int files = (o->files.certificate != NULL) + (o->files.key != NULL) + (o->files.ca != NULL);
	o->tls = files == 3;
	if (o->listen.port == 0)
		return "--listen ADDRESS:PORT is needed";
	if (!o->profile_given)
		return "--profile is needed: bin-a, bin-b, json, json-netxpto, http-push or any";
	if (o->link.port == 0)
		return "--link-listen or --link-connect ADDRESS:PORT is needed";
	if (files != 0 && files != 3)
		return "--certificate, --key and --ca go together";
	if (o->require_client_certificate && files == 0)
		return "--require-client-certificate needs --certificate, --key and --ca";
	if ((o->outage_every_s == 0) != (o->outage_for_s == 0) || o->outage_for_s > o->outage_every_s)
		return "--outage-every-s and --outage-for-s go together, the first the larger";
	if (o->store_chunks == 0 || o->store_chunks > 1u << 24)
		return "--store-chunks is from 1 to 16777216";
	return wrong_push(o);
}

int
sim_options_parse(int argc, char **argv, sim_options *o)
{
	*o = (sim_options){.rate_bps = 10000000, .store_chunks = 65536, .files.min_version = QG_TLS_1_2};
	int which;
	while ((which = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (which == HELP) {
			fputs(usage, stdout);
			return 1;
		}
		if (which == '?') {
			fputs(usage, stderr);
			return 2;
		}
		if (!option(o, which)) {
			fprintf(stderr, "qkdgate-sim: --%s: not allowed here: %s\n",
				long_options[which - LISTEN].name, optarg != NULL ? optarg : "");
			return 2;
		}
	}
	const char *text = optind < argc ? "there are only options" : wrong(o);
	if (text == NULL)
		return 0;
	fprintf(stderr, "qkdgate-sim: %s\n%s", text, usage);
	return 2;
}
