/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "qkdgate/clock.h"
#include "qkdgate/directory.h"
#include "qkdgate/secret.h"

#define FINGERPRINT "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static const qg_config_sae saes[] = {
	{.id = "alice", .match = {.uri = "urn:sae:alice"}},
	{.id = "bob", .match = {.dns = "Bob.Example"}},
	{.id = "carol", .match = {.cn = "Carol C."}},
	{.id = "dave", .match = {.fingerprint = FINGERPRINT}},
};

static const qg_config_neighbour neighbours[] = {
	{.id = "KME-B", .url = "https://b:1", .match = {.dns = "kme-b"}},
	{.id = "KME-C", .url = "https://c:1", .match = {.uri = "urn:kme:c"}},
};

static const qg_config_place places[] = {
	{.sae = "sae-*", .kme = "KME-STAR"},   {.sae = "sae-b*", .kme = "KME-LATE"},
	{.sae = "sae-exact", .kme = "KME-B"},  {.sae = "*e", .kme = "KME-E"},
	{.sae = "far", .kme = "KME-FAR"},
};

static const qg_config config = {
	.kme_id = "KME-A",
	.saes = saes,
	.n_saes = 4,
	.neighbours = neighbours,
	.n_neighbours = 2,
	.directory = places,
	.n_directory = 5,
};

typedef struct fixture {
	qg_directory *d;
	qg_tls_identity id;
} fixture;

static void
put(char to[QG_TLS_NAME_MAX], const char *text)
{
	assert_true(strlen(text) < QG_TLS_NAME_MAX);
	memcpy(to, text, strlen(text) + 1);
}

static int
set_up(void **state)
{
	fixture *f = calloc(1, sizeof *f);
	assert_non_null(f);
	memset(f->id.fingerprint, 'e', 64);
	assert_int_equal(qg_directory_new(&config, &f->d), QG_OK);
	*state = f;
	return 0;
}

static int
tear_down(void **state)
{
	fixture *f = *state;
	qg_directory_free(&f->d);
	assert_null(f->d);
	qg_directory_free(&f->d);
	free(f);
	return 0;
}

static void
each_kind_of_name_identifies(void **state)
{
	fixture *f = *state;
	put(f->id.uri[0], "urn:something:else");
	put(f->id.uri[1], "urn:sae:alice");
	f->id.n_uri = 2;
	assert_ptr_equal(qg_directory_identify(f->d, &f->id), &saes[0]);
	f->id.n_uri = 0;
	put(f->id.dns[0], "bOB.example");
	f->id.n_dns = 1;
	assert_ptr_equal(qg_directory_identify(f->d, &f->id), &saes[1]);
	f->id.n_dns = 0;
	put(f->id.cn, "Carol C.");
	assert_ptr_equal(qg_directory_identify(f->d, &f->id), &saes[2]);
	f->id.cn[0] = '\0';
	memcpy(f->id.fingerprint, FINGERPRINT, 65);
	assert_ptr_equal(qg_directory_identify(f->d, &f->id), &saes[3]);
}

static void
names_count_only_as_their_kind(void **state)
{
	fixture *f = *state;
	put(f->id.uri[0], "Bob.Example");
	put(f->id.uri[1], "alice");
	f->id.n_uri = 2;
	put(f->id.dns[0], "urn:sae:alice");
	put(f->id.dns[1], "Carol C.");
	f->id.n_dns = 2;
	put(f->id.cn, "bob.example");
	assert_null(qg_directory_identify(f->d, &f->id));
	put(f->id.cn, "carol c."); /* only DNS is without case */
	assert_null(qg_directory_identify(f->d, &f->id));
	put(f->id.uri[0], "URN:sae:alice");
	assert_null(qg_directory_identify(f->d, &f->id));
	put(f->id.dns[0], "bob.example.org");
	put(f->id.dns[1], "bob.exampl");
	assert_null(qg_directory_identify(f->d, &f->id));
}

static void
names_beyond_the_count_are_not_read(void **state)
{
	fixture *f = *state;
	put(f->id.uri[0], "urn:x");
	put(f->id.uri[1], "urn:sae:alice");
	f->id.n_uri = 1;
	assert_null(qg_directory_identify(f->d, &f->id));
}

static void
two_names_of_one_sae_are_fine(void **state)
{
	fixture *f = *state;
	put(f->id.dns[0], "bob.example");
	put(f->id.dns[1], "BOB.EXAMPLE");
	f->id.n_dns = 2;
	assert_ptr_equal(qg_directory_identify(f->d, &f->id), &saes[1]);
}

/* Runs it with standard error in a file and gives back what was written. */
static size_t
logged(const fixture *f, const qg_config_sae **found, char *text, size_t room)
{
	char name[] = "/tmp/qkdgate-test-XXXXXX";
	const int fd = mkstemp(name), keep = dup(STDERR_FILENO);
	assert_true(fd >= 0 && keep >= 0);
	assert_int_equal(unlink(name), 0);
	assert_true(dup2(fd, STDERR_FILENO) >= 0);
	*found = qg_directory_identify(f->d, &f->id);
	assert_true(dup2(keep, STDERR_FILENO) >= 0);
	const ssize_t n = pread(fd, text, room - 1, 0);
	assert_true(n >= 0);
	text[n] = '\0';
	assert_int_equal(close(fd) + close(keep), 0);
	return (size_t)n;
}

static void
names_of_two_saes_match_none_and_are_logged(void **state)
{
	fixture *f = *state;
	const qg_config_sae *found = &saes[0];
	char text[1024];
	put(f->id.uri[0], "urn:sae:alice");
	f->id.n_uri = 1;
	assert_int_equal(logged(f, &found, text, sizeof text), 0);
	assert_ptr_equal(found, &saes[0]);
	put(f->id.cn, "Carol C.");
	assert_true(logged(f, &found, text, sizeof text) > 0);
	assert_null(found);
	assert_non_null(strstr(text, "event=ambiguous_certificate"));
	assert_null(strstr(text, "Carol C.")); /* made safe for the log */
	f->id.cn[0] = '\0';
	put(f->id.dns[0], "bob.example");
	f->id.n_dns = 1;
	assert_true(logged(f, &found, text, sizeof text) > 0);
	assert_null(found);
	f->id.n_dns = 0;
	memcpy(f->id.fingerprint, FINGERPRINT, 65);
	assert_true(logged(f, &found, text, sizeof text) > 0);
	assert_null(found);
}

/* The loader refuses such a configuration; the directory does not guess. */
static void
one_name_of_two_saes_matches_none(void **state)
{
	const qg_config_sae same[] = {{.id = "a", .match = {.cn = "x"}}, {.id = "b", .match = {.cn = "x"}}};
	const qg_config cfg = {.kme_id = "K", .saes = same, .n_saes = 2};
	fixture *f = *state;
	qg_directory *d = NULL;
	assert_int_equal(qg_directory_new(&cfg, &d), QG_OK);
	put(f->id.cn, "x");
	assert_null(qg_directory_identify(d, &f->id));
	qg_directory_free(&d);
}

static void
neighbours_by_certificate(void **state)
{
	fixture *f = *state;
	put(f->id.dns[0], "KME-B");
	f->id.n_dns = 1;
	assert_ptr_equal(qg_directory_neighbour(f->d, &f->id), &neighbours[0]);
	assert_null(qg_directory_identify(f->d, &f->id));
	put(f->id.uri[0], "urn:kme:c");
	f->id.n_uri = 1;
	assert_null(qg_directory_neighbour(f->d, &f->id));
	f->id.n_dns = 0;
	assert_ptr_equal(qg_directory_neighbour(f->d, &f->id), &neighbours[1]);
	put(f->id.uri[0], "urn:sae:alice");
	assert_null(qg_directory_neighbour(f->d, &f->id));
}

static void
local_by_id(void **state)
{
	const fixture *f = *state;
	assert_ptr_equal(qg_directory_local(f->d, "carol"), &saes[2]);
	assert_null(qg_directory_local(f->d, "Carol C."));
	assert_null(qg_directory_local(f->d, "CAROL"));
	assert_null(qg_directory_local(f->d, "sae-exact"));
	assert_null(qg_directory_local(f->d, ""));
}

static void
home_of(const fixture *f, const char *sae, const char *kme)
{
	const char *const home = qg_directory_home(f->d, sae);
	if (kme == NULL)
		assert_null(home);
	else
		assert_string_equal(home, kme);
}

static void
home_local_then_exact_then_patterns_in_order(void **state)
{
	const fixture *f = *state;
	home_of(f, "alice", "KME-A"); /* though *e fits */
	home_of(f, "sae-exact", "KME-B");
	home_of(f, "sae-bob", "KME-STAR"); /* sae-b* comes later */
	home_of(f, "sae-e", "KME-STAR");
	home_of(f, "joe", "KME-E");
	home_of(f, "far", "KME-FAR");
	home_of(f, "sae-*", "KME-STAR"); /* as a text */
	home_of(f, "nobody", NULL);
	home_of(f, "", NULL);
}

static void
an_empty_directory_knows_nobody(void **state)
{
	const qg_config none = {.kme_id = "K"};
	const fixture *f = *state;
	qg_directory *d = NULL;
	assert_int_equal(qg_directory_new(&none, &d), QG_OK);
	assert_null(qg_directory_identify(d, &f->id));
	assert_null(qg_directory_neighbour(d, &f->id));
	assert_null(qg_directory_local(d, "alice"));
	assert_null(qg_directory_home(d, "alice"));
	qg_directory_free(&d);
}

enum { MANY = 100000 };

static char many_names[MANY][24];
static qg_config_sae many_saes[MANY];
static qg_config_place many_places[MANY];
static char many_places_names[MANY][24];

static void
a_hundred_thousand_saes(void **state)
{
	fixture *f = *state;
	qg_directory *d = NULL;
	for (size_t i = 0; i < MANY; i++) {
		assert_true(snprintf(many_names[i], sizeof many_names[i], "urn:sae:%zu", i) > 0);
		assert_true(snprintf(many_places_names[i], sizeof many_places_names[i], "far-%zu", i) > 0);
		many_saes[i] = (qg_config_sae){.id = many_names[i], .match = {.uri = many_names[i]}};
		many_places[i] = (qg_config_place){.sae = many_places_names[i], .kme = many_names[i]};
	}
	const qg_config cfg = {.kme_id = "K",
			       .saes = many_saes,
			       .n_saes = MANY,
			       .directory = many_places,
			       .n_directory = MANY};
	const uint64_t start_ms = qg_clock_elapsed_ms();
	assert_int_equal(qg_directory_new(&cfg, &d), QG_OK);
	f->id.n_uri = 1;
	for (size_t i = 0; i < MANY; i++) {
		put(f->id.uri[0], many_names[i]);
		assert_ptr_equal(qg_directory_identify(d, &f->id), &many_saes[i]);
		assert_ptr_equal(qg_directory_local(d, many_names[i]), &many_saes[i]);
		assert_ptr_equal(qg_directory_home(d, many_places_names[i]), many_names[i]);
	}
	const uint64_t took_ms = qg_clock_elapsed_ms() - start_ms;
	print_message("%d SAEs looked up in %u ms\n", MANY, (unsigned)took_ms);
	assert_true(took_ms < 10000); /* a linear search takes minutes */
	put(f->id.uri[0], "urn:sae:100000");
	assert_null(qg_directory_identify(d, &f->id));
	qg_directory_free(&d);
}

/* --- learning ------------------------------------------------------------------ */

static const char *const patterns_b[] = {"new-*", "far", "alice", "sae-exact", "sae-x", "uno"};
static const char *const patterns_c[] = {"*"};

static const qg_config_neighbour teachers[] = {
	{.id = "KME-B", .url = "https://b:1", .learn = patterns_b, .n_learn = 6},
	{.id = "KME-C", .url = "https://c:1", .learn = patterns_c, .n_learn = 1},
	{.id = "KME-D", .url = "https://d:1"},
};

static const qg_config learning = {
	.kme_id = "KME-A",
	.saes = saes,
	.n_saes = 4,
	.neighbours = teachers,
	.n_neighbours = 3,
	.directory = places,
	.n_directory = 5,
};

/* Of up to four IDs, NULL behind the last. */
static void
teach(qg_directory *d, const char *kme, const char *a, const char *b, const char *c)
{
	static qg_kms_saes list;
	const char *const ids[] = {a, b, c};
	memset(&list, 0, sizeof list);
	for (size_t i = 0; i < 3 && ids[i] != NULL; i++)
		assert_true(snprintf(list.id[list.n++], sizeof list.id[0], "%s", ids[i]) >= 0);
	qg_directory_learn(d, kme, &list);
}

static int
set_up_learning(void **state)
{
	fixture *f = calloc(1, sizeof *f);
	assert_non_null(f);
	assert_int_equal(qg_directory_new(&learning, &f->d), QG_OK);
	*state = f;
	return 0;
}

static void
what_a_neighbour_says_is_learned(void **state)
{
	fixture *f = *state;
	home_of(f, "new-1", NULL);
	teach(f->d, "KME-B", "new-1", "new-2", NULL);
	home_of(f, "new-1", "KME-B");
	assert_ptr_equal(qg_directory_home(f->d, "new-2"), teachers[0].id);
	home_of(f, "new-3", NULL);
	home_of(f, "new-", NULL);
	home_of(f, "new-11", NULL);
	teach(f->d, "KME-C", "other", NULL, NULL);
	home_of(f, "other", "KME-C");
	home_of(f, "new-1", "KME-B");
}

/* Patterns, neighbours without any, KMEs that are none, this node, the
 * configured directory: none of them gives way. */
static void
what_it_may_not_say_is_not(void **state)
{
	fixture *f = *state;
	teach(f->d, "KME-B", "stranger", "new1", "");
	home_of(f, "stranger", NULL);
	home_of(f, "new1", NULL);
	home_of(f, "", NULL);
	teach(f->d, "KME-D", "new-1", NULL, NULL);
	teach(f->d, "KME-X", "new-1", NULL, NULL);
	teach(f->d, "KME-A", "new-1", NULL, NULL);
	home_of(f, "new-1", NULL);
	teach(f->d, "KME-B", "alice", "far", "sae-exact");
	home_of(f, "alice", "KME-A");
	home_of(f, "far", "KME-FAR");
	home_of(f, "sae-exact", "KME-B"); /* by the configuration */
	teach(f->d, "KME-C", "alice", "joe", "");
	home_of(f, "alice", "KME-A");
	home_of(f, "joe", "KME-E");
	home_of(f, "", NULL);
}

static void
the_first_claim_holds_until_it_is_given_up(void **state)
{
	fixture *f = *state;
	teach(f->d, "KME-C", "new-1", "new-2", NULL);
	teach(f->d, "KME-B", "new-1", "new-3", NULL);
	home_of(f, "new-1", "KME-C");
	home_of(f, "new-3", "KME-B");
	teach(f->d, "KME-C", "new-1", NULL, NULL); /* again: nothing changes but new-2 */
	home_of(f, "new-1", "KME-C");
	home_of(f, "new-2", NULL);
	teach(f->d, "KME-C", NULL, NULL, NULL);
	home_of(f, "new-1", NULL);
	home_of(f, "new-3", "KME-B");
	teach(f->d, "KME-B", "new-1", NULL, NULL);
	home_of(f, "new-1", "KME-B");
	home_of(f, "new-3", NULL);
	teach(f->d, "KME-C", "new-1", "new-3", NULL);
	home_of(f, "new-1", "KME-B");
	home_of(f, "new-3", "KME-C");
}

static void
keep_errors(int keep[2])
{
	char name[] = "/tmp/qkdgate-test-XXXXXX";
	keep[0] = mkstemp(name);
	keep[1] = dup(STDERR_FILENO);
	assert_true(keep[0] >= 0 && keep[1] >= 0);
	assert_int_equal(unlink(name), 0);
	assert_true(dup2(keep[0], STDERR_FILENO) >= 0);
}

static void
give_errors(int keep[2], char *text, size_t room)
{
	assert_true(dup2(keep[1], STDERR_FILENO) >= 0);
	const ssize_t n = pread(keep[0], text, room - 1, 0);
	assert_true(n >= 0);
	text[n] = '\0';
	assert_int_equal(close(keep[0]) + close(keep[1]), 0);
}

static size_t
count(const char *text, const char *what)
{
	size_t n = 0;
	for (const char *at = strstr(text, what); at != NULL; at = strstr(at + 1, what))
		n++;
	return n;
}

/* A neighbour that goes on claiming does not fill the log. */
static void
conflicts_are_logged_once(void **state)
{
	static char text[65536];
	int keep[2];
	fixture *f = *state;
	keep_errors(keep);
	teach(f->d, "KME-C", "uno", NULL, NULL);
	for (int i = 0; i < 100; i++)
		teach(f->d, "KME-B", "far", "uno", NULL);
	teach(f->d, "KME-C", "uno", "far", NULL);
	give_errors(keep, text, sizeof text);
	assert_int_equal(count(text, "event=saes_learned neighbour=KME-C new=1 gone=0 all=1"), 1);
	assert_int_equal(count(text, "event=saes_refused neighbour=KME-B n=2 sae=far reason=\"it lives elsewhere"), 1);
	assert_int_equal(count(text, "event=saes_refused neighbour=KME-C n=1 sae=far"), 1);
	assert_int_equal(count(text, "event="), 3);
}

/* What a message can hold is not more than the directory may take; a broken
 * count is cut. */
static void
lists_are_bounded(void **state)
{
	static qg_kms_saes list;
	char name[32];
	fixture *f = *state;
	for (size_t i = 0; i < QG_KMS_SAES_MAX; i++)
		assert_true(snprintf(list.id[i], sizeof list.id[i], "many-%zu", i) > 0);
	list.n = QG_KMS_SAES_MAX + 1;
	qg_directory_learn(f->d, "KME-C", &list);
	for (size_t i = 0; i < QG_KMS_SAES_MAX; i++) {
		assert_true(snprintf(name, sizeof name, "many-%zu", i) > 0);
		home_of(f, name, "KME-C");
	}
}

enum { TEACHERS = QG_DIRECTORY_LEARNED_MAX / QG_KMS_SAES_MAX + 2 };

static qg_config_neighbour many_teachers[TEACHERS];
static char many_kmes[TEACHERS][16];

static void
no_more_than_there_is_room_for(void **state)
{
	static qg_kms_saes list;
	static char text[1 << 20];
	int keep[2];
	qg_directory *d = NULL;
	(void)state;
	for (size_t i = 0; i < TEACHERS; i++) {
		assert_true(snprintf(many_kmes[i], sizeof many_kmes[i], "K-%zu", i) > 0);
		many_teachers[i] = (qg_config_neighbour){.id = many_kmes[i], .learn = patterns_c, .n_learn = 1};
	}
	const qg_config cfg = {.kme_id = "K", .neighbours = many_teachers, .n_neighbours = TEACHERS};
	assert_int_equal(qg_directory_new(&cfg, &d), QG_OK);
	keep_errors(keep);
	for (size_t i = 0; i < TEACHERS; i++) {
		list.n = QG_KMS_SAES_MAX;
		for (size_t j = 0; j < list.n; j++)
			assert_true(snprintf(list.id[j], sizeof list.id[j], "s-%zu-%zu", i, j) > 0);
		qg_directory_learn(d, many_kmes[i], &list);
	}
	give_errors(keep, text, sizeof text);
	assert_int_equal(count(text, "reason=\"there is no room\""), 2);
	assert_string_equal(qg_directory_home(d, "s-0-0"), "K-0");
	assert_string_equal(qg_directory_home(d, "s-1023-63"), "K-1023");
	assert_null(qg_directory_home(d, "s-1024-0"));
	list.n = 0; /* one makes room */
	qg_directory_learn(d, many_kmes[7], &list);
	assert_null(qg_directory_home(d, "s-7-0"));
	list.n = 1;
	assert_true(snprintf(list.id[0], sizeof list.id[0], "late") > 0);
	qg_directory_learn(d, many_kmes[TEACHERS - 1], &list);
	assert_string_equal(qg_directory_home(d, "late"), many_kmes[TEACHERS - 1]);
	qg_directory_free(&d);
}

static atomic_bool over;

static void *
look_up(void *ctx)
{
	const fixture *f = ctx;
	size_t bad = 0;
	while (!over) {
		const char *const home = qg_directory_home(f->d, "new-1");
		bad += home != NULL && home != teachers[0].id && home != teachers[1].id;
		bad += qg_directory_home(f->d, "far") != places[4].kme;
	}
	return (void *)(uintptr_t)bad;
}

static void *
teach_on(void *ctx)
{
	static qg_kms_saes lists[4] = {{.n = 0}, {.n = 2, .id = {"new-1", "new-2"}}, {.n = 1, .id = {"new-2"}},
				       {.n = 1, .id = {"new-1"}}};
	const fixture *f = ctx;
	for (unsigned i = 0; i < 20000; i++)
		qg_directory_learn(f->d, i % 3 == 0 ? "KME-B" : "KME-C", &lists[i % 4]);
	return NULL;
}

static void
looked_up_while_it_learns(void **state)
{
	fixture *f = *state;
	pthread_t reader[2], writer[2];
	char text[64];
	int keep[2];
	void *bad = NULL;
	keep_errors(keep);
	over = false;
	for (int i = 0; i < 2; i++) {
		assert_int_equal(pthread_create(&reader[i], NULL, look_up, f), 0);
		assert_int_equal(pthread_create(&writer[i], NULL, teach_on, f), 0);
	}
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_join(writer[i], NULL), 0);
	over = true;
	for (int i = 0; i < 2; i++) {
		assert_int_equal(pthread_join(reader[i], &bad), 0);
		assert_null(bad);
	}
	give_errors(keep, text, sizeof text);
}

/* --- telling --------------------------------------------------------------------- */

static void
own_saes_are_told(void **state)
{
	static qg_kms_saes list;
	const fixture *f = *state;
	memset(&list, 0xff, sizeof list);
	qg_directory_tell(f->d, &list);
	assert_int_equal(list.n, 4);
	assert_string_equal(list.id[0], "alice");
	assert_string_equal(list.id[3], "dave");
}

static void
the_first_of_many_are_told_and_the_rest_logged_once(void **state)
{
	static qg_kms_saes list;
	char text[1024], name[24];
	int keep[2];
	qg_directory *d = NULL;
	(void)state;
	for (size_t i = 0; i < 65; i++) {
		assert_true(snprintf(many_names[i], sizeof many_names[i], "urn:sae:%zu", i) > 0);
		many_saes[i] = (qg_config_sae){.id = many_names[i], .match = {.uri = many_names[i]}};
	}
	const qg_config cfg = {.kme_id = "K", .saes = many_saes, .n_saes = 65};
	assert_int_equal(qg_directory_new(&cfg, &d), QG_OK);
	keep_errors(keep);
	for (int i = 0; i < 3; i++)
		qg_directory_tell(d, &list);
	give_errors(keep, text, sizeof text);
	assert_int_equal(list.n, 64);
	assert_true(snprintf(name, sizeof name, "urn:sae:%d", 63) > 0);
	assert_string_equal(list.id[63], name);
	assert_int_equal(count(text, "event=saes_not_told known=65 told=64"), 1);
	qg_directory_free(&d);
}

/* --- another configuration --------------------------------------------------------- */

/* One that is freed like one that was read: so it has to be read. */
static qg_config *
read_config(const char *sae)
{
	char name[] = "/tmp/qkdgate-test-XXXXXX", text[2048];
	qg_config *cfg = NULL;
	const int fd = mkstemp(name);
	assert_true(fd >= 0);
	FILE *f = fdopen(fd, "w"), *report = tmpfile();
	assert_non_null(f);
	assert_non_null(report);
	const int n = snprintf(text, sizeof text,
			       "kme: {id: KME-A}\n"
			       "sae_listener: {listen: \"127.0.0.1:1\", certificate: a, key: b, ca: c}\n"
			       "kms_listener: {listen: \"127.0.0.1:2\", certificate: a, key: b, ca: c}\n"
			       "store: {database: d, anchor: e, master_key: f, key_ring: g}\n"
			       "audit: {file: h}\n"
			       "saes: [{id: %s, certificate: {uri: \"urn:sae:%s\"}}]\n"
			       "directory: [{sae: far, kme: KME-B}, {sae: alone, kme: KME-NOWHERE}]\n",
			       sae, sae);
	assert_true(n > 0 && (size_t)n < sizeof text);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(qg_config_load(name, report, &cfg), QG_OK);
	assert_int_equal(fclose(report), 0);
	assert_int_equal(unlink(name), 0);
	return cfg;
}

static uint64_t now_ms = 1;

static uint64_t
told_ms(void)
{
	return now_ms;
}

static int64_t
no_wall_ms(void)
{
	return 0;
}

static void
another_configuration_takes_its_place(void **state)
{
	fixture *f = *state;
	static const qg_clock_ops clock = {.elapsed_ms = told_ms, .wall_ms = no_wall_ms};
	qg_clock_use(&clock);
	qg_config *cfg = read_config("zoe");
	const qg_config *now = cfg;
	const qg_config_sae *alice = qg_directory_local(f->d, "alice");
	assert_int_equal(qg_directory_renew(f->d, &cfg), QG_OK);
	assert_null(cfg); /* it is the directory's now */
	assert_ptr_equal(qg_directory_config(f->d), now);
	assert_null(qg_directory_local(f->d, "alice"));
	assert_non_null(qg_directory_local(f->d, "zoe"));
	assert_string_equal(alice->id, "alice"); /* of the start: it stays */
	/* Names of KMEs outlast the configuration that gave them. */
	const char *far = qg_directory_home(f->d, "far"), *alone = qg_directory_home(f->d, "alone");
	assert_ptr_equal(far, neighbours[0].id);
	const qg_config_sae *zoe = qg_directory_local(f->d, "zoe");
	for (int i = 0; i < 50; i++) {
		cfg = read_config(i % 2 == 0 ? "yves" : "zoe");
		assert_int_equal(qg_directory_renew(f->d, &cfg), QG_OK);
		now_ms += 60000;
		if (i < 5)
			assert_string_equal(zoe->id, "zoe"); /* not ten minutes yet */
	}
	assert_string_equal(alone, "KME-NOWHERE");
	assert_ptr_equal(qg_directory_home(f->d, "alone"), alone);
	/* The names of neighbours' certificates are not of it. */
	f->id.n_dns = 1;
	put(f->id.dns[0], "kme-b");
	assert_ptr_equal(qg_directory_neighbour(f->d, &f->id), &neighbours[0]);
	qg_clock_use(NULL);
}

#define IN_LEARNING(test) cmocka_unit_test_setup_teardown(test, set_up_learning, tear_down)
#define IN_FIXTURE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		IN_FIXTURE(each_kind_of_name_identifies),
		IN_FIXTURE(names_count_only_as_their_kind),
		IN_FIXTURE(names_beyond_the_count_are_not_read),
		IN_FIXTURE(two_names_of_one_sae_are_fine),
		IN_FIXTURE(names_of_two_saes_match_none_and_are_logged),
		IN_FIXTURE(one_name_of_two_saes_matches_none),
		IN_FIXTURE(neighbours_by_certificate),
		IN_FIXTURE(local_by_id),
		IN_FIXTURE(home_local_then_exact_then_patterns_in_order),
		IN_FIXTURE(an_empty_directory_knows_nobody),
		IN_FIXTURE(another_configuration_takes_its_place),
		IN_FIXTURE(a_hundred_thousand_saes),
		IN_LEARNING(what_a_neighbour_says_is_learned),
		IN_LEARNING(what_it_may_not_say_is_not),
		IN_LEARNING(the_first_claim_holds_until_it_is_given_up),
		IN_LEARNING(conflicts_are_logged_once),
		IN_LEARNING(lists_are_bounded),
		cmocka_unit_test(no_more_than_there_is_room_for),
		IN_LEARNING(looked_up_while_it_learns),
		IN_LEARNING(own_saes_are_told),
		cmocka_unit_test(the_first_of_many_are_told_and_the_rest_logged_once),
	};
	if (qg_secret_init() != QG_OK)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
