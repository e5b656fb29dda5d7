/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon.h"
#include "qkdgate/config.h"
#include "qkdgate/log.h"
#include "qkdgate/seal.h"
#include "qkdgate/secret.h"
#include "qkdgate/tls.h"
#include "qkdgate/version.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

typedef struct command {
	const char *name;
	const char *argument; /* NULL: none */
	const char *help;
	int (*run)(const char *argument);
} command;

static int
command_run(const char *file)
{
	qg_config *cfg = NULL;
	if (qg_config_load(file, stderr, &cfg) != QG_OK)
		return EXIT_FAILED;
	qg_log_init(cfg->log_level, cfg->log_format);
	if (cfg->log_to != QG_LOG_STDERR)
		qg_log_open(cfg->log_to, cfg->log_to == QG_LOG_FILE ? cfg->log_file : cfg->journal_socket);
	/* Before anything is made or opened, and in words that name the line. */
	int rc = EXIT_FAILED;
	if (qg_config_check_files(file, cfg, stderr) == QG_OK && qg_daemon_run(file, cfg) == QG_OK)
		rc = EXIT_DONE;
	qg_config_free(&cfg);
	return rc;
}

static int
command_check(const char *file)
{
	qg_config *cfg = NULL;
	if (qg_config_load(file, stderr, &cfg) != QG_OK)
		return EXIT_FAILED;
	int rc = qg_config_check_files(file, cfg, stderr) == QG_OK ? EXIT_DONE : EXIT_FAILED;
	qg_config_free(&cfg);
	if (rc == EXIT_DONE)
		printf("%s: ok\n", file);
	return rc;
}

static int
command_reset(const char *file)
{
	qg_config *cfg = NULL;
	if (qg_config_load(file, stderr, &cfg) != QG_OK)
		return EXIT_FAILED;
	qg_log_init(cfg->log_level, cfg->log_format);
	int rc = qg_daemon_reset_epochs(file, cfg) == QG_OK ? EXIT_DONE : EXIT_FAILED;
	qg_config_free(&cfg);
	if (rc == EXIT_DONE)
		printf("all epochs ended; the next start opens new ones\n");
	return rc;
}

static int
command_make_master_key(const char *path)
{
	errno = 0;
	qg_err err = qg_seal_make_master_key(path);
	if (err == QG_OK)
		return EXIT_DONE;
	fprintf(stderr, "qkdgate: %s: %s\n", path,
		err == QG_E_IO && errno != 0 ? strerror(errno) : qg_err_text(err));
	return EXIT_FAILED;
}

static int
command_reference(const char *argument)
{
	(void)argument;
	qg_config_print_reference(stdout);
	return EXIT_DONE;
}

static int
command_version(const char *argument)
{
	(void)argument;
	printf("qkdgate " QG_VERSION "\n");
	return EXIT_DONE;
}

static int command_help(const char *argument);

static const command commands[] = {
	{"run", "FILE", "run the gateway with the configuration FILE, in the foreground", command_run},
	{"check-config", "FILE", "say everything that is wrong with FILE and what it names", command_check},
	{"reset-epochs", "FILE", "after a restore, with the gateway stopped: give up all key taken so far",
	 command_reset},
	{"make-master-key", "PATH", "make a master key file; one that exists is left alone",
	 command_make_master_key},
	{"config-reference", NULL, "print the reference of all options", command_reference},
	{"--version", NULL, "print the version", command_version},
	{"--help", NULL, "print this", command_help},
};
#define N_COMMANDS (sizeof commands / sizeof commands[0])

static void
print_usage(FILE *out)
{
	fprintf(out, "usage: qkdgate COMMAND [ARGUMENT]\n\n"
		     "A key-delivery gateway for quantum key distribution networks. See qkdgate(8).\n\n");
	for (size_t i = 0; i < N_COMMANDS; i++)
		fprintf(out, "  %-16s %-5s %s\n", commands[i].name,
			commands[i].argument != NULL ? commands[i].argument : "", commands[i].help);
}

static int
command_help(const char *argument)
{
	(void)argument;
	print_usage(stdout);
	return EXIT_DONE;
}

int
main(int argc, char **argv)
{
	const command *cmd = NULL;
	for (size_t i = 0; argc > 1 && i < N_COMMANDS; i++)
		if (strcmp(argv[1], commands[i].name) == 0)
			cmd = &commands[i];
	if (cmd == NULL || argc != (cmd->argument != NULL ? 3 : 2)) {
		if (argc > 1 && cmd == NULL)
			fprintf(stderr, "qkdgate: unknown command %s\n", qg_log_safe(argv[1]));
		else if (cmd != NULL)
			fprintf(stderr, "qkdgate: %s takes %s%s\n", cmd->name,
				cmd->argument != NULL ? "exactly one argument: " : "no argument",
				cmd->argument != NULL ? cmd->argument : "");
		print_usage(stderr);
		return EXIT_USAGE;
	}
	if (qg_secret_init() != QG_OK) {
		fprintf(stderr, "qkdgate: no locked memory; raise the limit (ulimit -l, LimitMEMLOCK=)\n");
		return EXIT_FAILED;
	}
	qg_tls_wipe_received();
	int rc = cmd->run(argc == 3 ? argv[2] : NULL);
	qg_secret_fini();
	return rc;
}
