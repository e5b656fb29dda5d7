/* SPDX-License-Identifier: Apache-2.0 */
/* Commands that do. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ctl_internal.h"

#define TICK_MS 100
#define STOP_TICKS (300 * 1000 / TICK_MS) /* an orderly stop waits for its sources */

int
ctl_send(const ctl_options *o, const char *method, char *path, json_t *body)
{
	json_t *answer = NULL;
	char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
	const bool no_memory = path == NULL || (body != NULL && text == NULL);
	json_decref(body);
	(void)ctl_progress_begin(o, "asking the gateway", 0, 0);
	int rc = no_memory ? CTL_FAILED : ctl_ask(o, method, path, text, &answer);
	ctl_progress_end();
	if (rc == CTL_DONE && o->json) {
		char *shown = json_dumps(answer, JSON_INDENT(1));
		printf("%s\n", shown != NULL ? shown : "{}");
		free(shown);
	} else if (rc == CTL_DONE) {
		const json_t *chunks = json_object_get(answer, "chunks");
		printf("done: %s", json_string_value(json_object_get(answer, "done")));
		if (chunks != NULL)
			printf(", %lld chunks", (long long)json_integer_value(chunks));
		printf("\n");
		if (json_is_true(json_object_get(answer, "pending")))
			printf("now put it in the place of the old one (store.master_key) and restart: until then both are good\n");
	}
	json_decref(answer);
	free(text);
	free(path);
	return rc;
}

static int
act(const ctl_options *o, char *path, json_t *body)
{
	return ctl_send(o, "POST", path, body);
}

int
ctl_act(const ctl_options *o, const ctl_command *c)
{
	return act(o, strdup(c->path), NULL);
}

int
ctl_post(const ctl_options *o, const char *path)
{
	return act(o, strdup(path), NULL);
}

/* People see it come to its end; interrupting that does not keep the gateway from it. */
static void
watch_drain(const ctl_options *o)
{
	const struct timespec tick = {.tv_nsec = TICK_MS * 1000000L};
	const unsigned ticks = o->grace_s * 1000 / TICK_MS;
	if (!ctl_progress_begin(o, "keys can still be fetched", 0, ticks))
		return;
	for (unsigned i = 0; i < ticks; i++) {
		ctl_progress_at(i, "keys can still be fetched");
		(void)nanosleep(&tick, NULL);
	}
	ctl_progress_at(ticks, "stopping");
	for (unsigned i = 0; i < STOP_TICKS && o->place.url == NULL && access(o->place.socket, F_OK) == 0; i++)
		(void)nanosleep(&tick, NULL);
	ctl_progress_end();
	if (o->place.url == NULL && access(o->place.socket, F_OK) != 0)
		printf("stopped\n");
}

int
ctl_drain(const ctl_options *o, const ctl_command *c)
{
	const int rc = act(o, strdup(c->path), json_pack("{s:I}", "grace_s", (json_int_t)o->grace_s));
	if (rc == CTL_DONE)
		watch_drain(o);
	return rc;
}

/* The command's own name is the last part of the path. */
int
ctl_stream_act(const ctl_options *o, const ctl_command *c)
{
	char after[64];
	(void)snprintf(after, sizeof after, "/%s", c->name);
	return act(o, ctl_path("/api/v1/streams/", o->arguments[0], after), NULL);
}

int
ctl_suspend(const ctl_options *o, const ctl_command *c)
{
	char after[64];
	(void)snprintf(after, sizeof after, "/%s", c->name);
	if (o->n_arguments == 1)
		return act(o, ctl_path("/api/v1/saes/", o->arguments[0], after), NULL);
	char *first = ctl_path("/api/v1/pairs/", o->arguments[0], "/");
	char *path = first != NULL ? ctl_path(first, o->arguments[1], after) : NULL;
	free(first);
	return act(o, path, NULL);
}

/* suspend-peer, resume-peer */
int
ctl_peer(const ctl_options *o, const ctl_command *c)
{
	return act(o, ctl_path("/api/v1/peers/", o->arguments[0], c->name[0] == 's' ? "/suspend" : "/resume"), NULL);
}

int
ctl_set_log(const ctl_options *o, const ctl_command *c)
{
	json_t *body = o->n_arguments == 1
			       ? json_pack("{s:s}", "level", o->arguments[0])
			       : json_pack("{s:s,s:s}", "module", o->arguments[0], "level", o->arguments[1]);
	return act(o, strdup(c->path), body);
}

/* A relative name is one of the operator's folder, as long as both are on one machine. */
int
ctl_rotate_master_key(const ctl_options *o, const ctl_command *c)
{
	const char *file = o->n_arguments > 0 ? o->arguments[0] : NULL;
	char *whole = file != NULL && file[0] != '/' && strncmp(file, "credential:", 11) != 0 ? realpath(file, NULL) : NULL;
	if (file == NULL)
		return act(o, strdup(c->path), NULL);
	const int rc = act(o, strdup(c->path), json_pack("{s:s}", "file", whole != NULL ? whole : file));
	free(whole);
	return rc;
}

int
ctl_zeroize(const ctl_options *o, const ctl_command *c)
{
	if (o->confirm == NULL) {
		fprintf(stderr, "qkdgatectl: this destroys all key material of the gateway for good; "
				"if you mean it, give --confirm KME_ID\n");
		return CTL_USAGE;
	}
	return act(o, strdup(c->path), json_pack("{s:s}", "confirm", o->confirm));
}
