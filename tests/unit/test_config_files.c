/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "qkdgate/config.h"
#include "qkdgate/seal.h"
#include "qkdgate/secret.h"

#define NOBODY 65534

/* A folder with the sample configuration and everything that it names. */
static char dir[] = "/tmp/qkdgate-test-XXXXXX";
static char report[65536];

static const char *
in_dir(const char *name)
{
	static char path[4][256];
	static unsigned next;
	char *const p = path[next++ % 4];
	assert_true(snprintf(p, sizeof path[0], "%s/%s", dir, name) > 0);
	return p;
}

static void
run(const char *command)
{
	const int status = system(command);
	if (status != 0)
		fail_msg("%s: status %d", command, status);
}

static void
write_text(const char *name, const char *text, mode_t mode)
{
	FILE *f = fopen(in_dir(name), "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(chmod(in_dir(name), mode), 0);
}

static int
make_folder(void **state)
{
	char command[256];
	(void)state;
	assert_non_null(mkdtemp(dir));
	assert_int_equal(chmod(dir, 0755), 0);
	assert_true(snprintf(command, sizeof command, "certs/make-pki %s/pki", dir) > 0);
	run(command);
	assert_true(snprintf(command, sizeof command, "cp tests/unit/data/config/sample.yaml %s/good.yaml",
			     dir) > 0);
	run(command);
	return 0;
}

static int
remove_folder(void **state)
{
	char command[256];
	(void)state;
	assert_true(snprintf(command, sizeof command, "rm -rf '%s'", dir) > 0);
	run(command);
	return 0;
}

static int
make_state(void **state)
{
	(void)state;
	assert_int_equal(mkdir(in_dir("kme-a"), 0700), 0);
	assert_int_equal(mkdir(in_dir("kme-a-anchor"), 0700), 0);
	assert_int_equal(qg_seal_make_master_key(in_dir("kme-a.master")), QG_OK);
	return 0;
}

static int
remove_state(void **state)
{
	char command[256];
	(void)state;
	assert_true(snprintf(command, sizeof command,
			     "cd '%s' && rm -rf kme-a kme-a-anchor kme-a.master changed.yaml", dir) > 0);
	run(command);
	return 0;
}

static qg_err
check(const char *name)
{
	qg_config *c = NULL;
	report[0] = '\0';
	FILE *f = fmemopen(report, sizeof report - 1, "w");
	assert_non_null(f);
	assert_int_equal(qg_config_load(in_dir(name), f, &c), QG_OK);
	const qg_err err = qg_config_check_files(in_dir(name), c, f);
	assert_int_equal(fclose(f), 0);
	qg_config_free(&c);
	return err;
}

static size_t
lines(const char *text)
{
	size_t n = 0;
	for (; *text != '\0'; text++)
		n += *text == '\n';
	return n;
}

/* Exactly the one problem, in that line of that option. */
static void
says(const char *name, unsigned line, const char *option, const char *why)
{
	char head[512];
	assert_int_equal(check(name), QG_E_PARSE);
	assert_true(snprintf(head, sizeof head, "%s:%u: %s: ", in_dir(name), line, option) > 0);
	if (strncmp(report, head, strlen(head)) != 0 || strstr(report, why) == NULL || lines(report) != 1)
		fail_msg("%s%s is right, not\n%s", head, why, report);
}

/* good.yaml with one line in another form. */
static void
change(const char *what, const char *with)
{
	static char text[16384], out[16384];
	FILE *f = fopen(in_dir("good.yaml"), "r");
	assert_non_null(f);
	text[fread(text, 1, sizeof text - 1, f)] = '\0';
	assert_int_equal(fclose(f), 0);
	const char *const at = strstr(text, what);
	assert_non_null(at);
	assert_true(snprintf(out, sizeof out, "%.*s%s%s", (int)(at - text), text, with,
			     at + strlen(what)) > 0);
	write_text("changed.yaml", out, 0644);
}

static void
all_is_well(void **state)
{
	(void)state;
	assert_int_equal(check("good.yaml"), QG_OK);
	assert_string_equal(report, "");
	write_text("kme-a/keys.db", "", 0600);
	write_text("kme-a/audit.log", "", 0600);
	assert_int_equal(check("good.yaml"), QG_OK);
	write_text("kme-a.master", "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF\n",
		   0400);
	assert_int_equal(check("good.yaml"), QG_OK);
}

static void
certificates_and_keys(void **state)
{
	(void)state;
	change("key: pki/kme-a.key\n  ca: pki/ca.pem\n  crl", "key: pki/kme-b.key\n  ca: pki/ca.pem\n  crl");
	says("changed.yaml", 4, "sae_listener", "kme-");
	change("crl: pki/crl.pem", "crl: pki/none.pem");
	says("changed.yaml", 4, "sae_listener", "none.pem");
	change("certificate: pki/kme-a.pem\n  key: pki/kme-a.key\n  ca: pki/ca.pem\nstore",
	       "certificate: pki/expired.pem\n  key: pki/expired.key\n  ca: pki/ca.pem\nstore");
	says("changed.yaml", 20, "kms_client", "expired.pem");
	change("      ca: pki/ca.pem", "      ca: pki/kme-a.key");
	says("changed.yaml", 54, "streams[0].source", "kme-a.key");
}

/* In one line each, before a section that good.yaml has. */
#define KXI_LISTENER(name) \
	"kxi_listener: {listen: \"127.0.0.1:18444\", certificate: pki/" name ".pem, key: pki/" name ".key, ca: pki/ca.pem}\n"
#define KXI_CLIENT(name) "kxi_client: {certificate: pki/" name ".pem, key: pki/" name ".key, ca: pki/ca.pem}\n"

static void
certificates_for_other_networks(void **state)
{
	(void)state;
	change("store:", KXI_LISTENER("kme-a") KXI_CLIENT("kme-a") "store:");
	assert_int_equal(check("changed.yaml"), QG_OK);
	change("store:", KXI_LISTENER("expired") "store:");
	says("changed.yaml", 24, "kxi_listener", "expired.pem");
	change("store:", KXI_LISTENER("kme-a") KXI_CLIENT("none") "store:");
	says("changed.yaml", 25, "kxi_client", "none.pem");
}

static void
a_loose_private_key(void **state)
{
	(void)state;
	assert_int_equal(chmod(in_dir("pki/kme-a.key"), 0640), 0);
	assert_int_equal(check("good.yaml"), QG_E_PARSE);
	assert_int_equal(lines(report), 4); /* two listeners, client, stream */
	assert_non_null(strstr(report, ":20: kms_client: "));
	assert_int_equal(chmod(in_dir("pki/kme-a.key"), 0600), 0);
}

static void
the_master_key(void **state)
{
	(void)state;
	assert_int_equal(chmod(in_dir("kme-a.master"), 0640), 0);
	says("good.yaml", 27, "store.master_key", "mode 0600 or 0400");
	assert_int_equal(chmod(in_dir("kme-a.master"), 0600), 0);
	write_text("kme-a.master", "too short", 0600);
	says("good.yaml", 27, "store.master_key", "32 bytes or 64 hex digits");
	assert_null(strstr(report, "too short"));
	write_text("kme-a.master", "00112233445566778899aabbccddeeff00112233445566778899aabbccddeefg", 0600);
	says("good.yaml", 27, "store.master_key", "32 bytes or 64 hex digits");
	assert_int_equal(unlink(in_dir("kme-a.master")), 0);
	says("good.yaml", 27, "store.master_key", "cannot be read");
	assert_int_equal(mkdir(in_dir("kme-a.master"), 0700), 0);
	says("good.yaml", 27, "store.master_key", "regular file");
}

static void
the_master_key_as_credential(void **state)
{
	(void)state;
	change("master_key: kme-a.master", "master_key: credential:kme-a.master");
	assert_int_equal(unsetenv("CREDENTIALS_DIRECTORY"), 0);
	assert_int_equal(check("changed.yaml"), QG_OK);
	assert_int_equal(setenv("CREDENTIALS_DIRECTORY", dir, 1), 0);
	assert_int_equal(check("changed.yaml"), QG_OK);
	assert_int_equal(unlink(in_dir("kme-a.master")), 0);
	says("changed.yaml", 27, "store.master_key", "cannot be read");
	assert_int_equal(unsetenv("CREDENTIALS_DIRECTORY"), 0);
}

/* good.yaml with a virtual stream whose chunks are read from `random`. */
static void
draw_from(const char *random)
{
	char text[1024];
	assert_true(snprintf(text, sizeof text,
			     "streams:\n  - name: virtual\n    neighbour: KME-B\n    direction: outbound\n"
			     "    relay:\n      random: %s\n      routes: [{via: []}]\n"
			     "  - name: a-to-b\n    node_chunks: 256\n", random) > 0);
	change("streams:\n  - name: a-to-b\n", text);
}

static void
where_key_is_drawn(void **state)
{
	(void)state;
	draw_from("/dev/urandom");
	assert_int_equal(check("changed.yaml"), QG_OK);
	draw_from("rng");
	says("changed.yaml", 53, "streams[0].relay.random", "cannot be read: No such file");
	write_text("rng", "", 0600);
	assert_int_equal(check("changed.yaml"), QG_OK);
	assert_int_equal(unlink(in_dir("rng")), 0);
	draw_from("pki");
	says("changed.yaml", 53, "streams[0].relay.random", "is neither a file nor a device");
}

static void
folders_that_are_missing_or_none(void **state)
{
	(void)state;
	assert_int_equal(rmdir(in_dir("kme-a-anchor")), 0);
	assert_int_equal(check("good.yaml"), QG_E_PARSE);
	assert_int_equal(lines(report), 2);
	assert_non_null(strstr(report, ":26: store.anchor: "));
	assert_non_null(strstr(report, ":28: store.key_ring: "));
	write_text("kme-a-anchor", "", 0600);
	assert_int_equal(check("good.yaml"), QG_E_PARSE);
	assert_int_equal(lines(report), 2);
	assert_int_equal(unlink(in_dir("kme-a-anchor")), 0);
	assert_int_equal(mkdir(in_dir("kme-a-anchor"), 0700), 0);
	assert_int_equal(mkdir(in_dir("kme-a/keys.db"), 0700), 0);
	says("good.yaml", 25, "store.database", "is not a regular file");
}

static void
folders_that_cannot_be_written(void **state)
{
	const uid_t before = geteuid();
	(void)state;
	assert_int_equal(chmod(in_dir("kme-a"), 0555), 0);
	if (before == 0) { /* root may write everywhere */
		assert_int_equal(chown(in_dir("pki/kme-a.key"), NOBODY, (gid_t)-1), 0);
		assert_int_equal(chown(in_dir("kme-a-anchor"), NOBODY, (gid_t)-1), 0);
		assert_int_equal(chown(in_dir("kme-a.master"), NOBODY, (gid_t)-1), 0);
		assert_int_equal(chmod(in_dir("pki"), 0755), 0);
		assert_int_equal(seteuid(NOBODY), 0);
	}
	const qg_err err = check("good.yaml");
	assert_int_equal(seteuid(before), 0);
	if (before == 0)
		assert_int_equal(chown(in_dir("pki/kme-a.key"), 0, (gid_t)-1), 0);
	assert_int_equal(chmod(in_dir("kme-a"), 0700), 0);
	assert_int_equal(err, QG_E_PARSE);
	if (lines(report) != 2 || strstr(report, ":25: store.database: ") == NULL ||
	    strstr(report, "audit.file: ") == NULL || strstr(report, "cannot be written") == NULL)
		fail_msg("not the two folders:\n%s", report);
}

static void
loose_files_of_the_daemon(void **state)
{
	static const struct {
		const char *file, *option;
		unsigned line;
	} cases[] = {
		{"kme-a/keys.db", "store.database", 25},
		{"kme-a-anchor/anchor", "store.anchor", 26},
		{"kme-a-anchor/key-ring", "store.key_ring", 28},
		{"kme-a/audit.log", "audit.file", 32},
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		write_text(cases[i].file, "", 0640);
		says("good.yaml", cases[i].line, cases[i].option, "mode 0600");
		assert_int_equal(chmod(in_dir(cases[i].file), 0600), 0);
		assert_int_equal(check("good.yaml"), QG_OK);
	}
}

static void
everything_in_one_go(void **state)
{
	(void)state;
	change("crl: pki/crl.pem", "crl: pki/none.pem");
	assert_int_equal(rmdir(in_dir("kme-a")), 0);
	assert_int_equal(rmdir(in_dir("kme-a-anchor")), 0);
	assert_int_equal(unlink(in_dir("kme-a.master")), 0);
	assert_int_equal(check("changed.yaml"), QG_E_PARSE);
	assert_int_equal(lines(report), 6);
}

/* The file may go away between loading and this. */
static void
a_file_that_is_gone(void **state)
{
	qg_config *c = NULL;
	(void)state;
	FILE *f = fmemopen(report, sizeof report - 1, "w");
	assert_non_null(f);
	assert_int_equal(qg_config_load(in_dir("good.yaml"), f, &c), QG_OK);
	assert_int_equal(qg_config_check_files(in_dir("gone.yaml"), c, f), QG_E_IO);
	assert_int_equal(fclose(f), 0);
	assert_non_null(strstr(report, "cannot be opened"));
	qg_config_free(&c);
}

#define IN_STATE(test) cmocka_unit_test_setup_teardown(test, make_state, remove_state)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		IN_STATE(all_is_well),
		IN_STATE(certificates_and_keys),
		IN_STATE(certificates_for_other_networks),
		IN_STATE(a_loose_private_key),
		IN_STATE(the_master_key),
		IN_STATE(the_master_key_as_credential),
		IN_STATE(where_key_is_drawn),
		IN_STATE(folders_that_are_missing_or_none),
		IN_STATE(folders_that_cannot_be_written),
		IN_STATE(loose_files_of_the_daemon),
		IN_STATE(everything_in_one_go),
		IN_STATE(a_file_that_is_gone),
	};
	if (qg_secret_init() != QG_OK)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
