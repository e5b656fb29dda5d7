/* SPDX-License-Identifier: Apache-2.0 */
/* One key at both ends, with libqkdgate:
 *   cc get_key.c $(pkg-config --cflags --libs libqkdgate)
 *   ./a.out URL_A URL_B CA CERT_A KEY_A SAE_A CERT_B KEY_B SAE_B
 * In real life the two halves are two programs, and the key ID travels between them. */
#include <stdio.h>
#include <string.h>

#include <qkdgate/client.h>

static int
failed(const char *what, qg_err err, const char *why)
{
	fprintf(stderr, "%s: %s%s%s\n", what, qg_err_text(err), why[0] != '\0' ? ": " : "", why);
	return 1;
}

int
main(int argc, char **argv)
{
	char why[256];
	qg_client *a = NULL, *b = NULL;
	qg_client_keys *mine = NULL, *theirs = NULL;
	if (argc != 10)
		return 2;
	qg_client_files files_a = {.certificate = argv[4], .key = argv[5], .ca = argv[3]};
	qg_client_files files_b = {.certificate = argv[7], .key = argv[8], .ca = argv[3]};

	qg_err err = qg_client_open(argv[1], &files_a, 0, &a, why, sizeof why);
	if (err == QG_OK)
		err = qg_client_open(argv[2], &files_b, 0, &b, why, sizeof why);
	if (err != QG_OK)
		return failed("open", err, why);

	err = qg_client_enc_keys(a, argv[9], 1, 256, &mine);
	if (err != QG_OK)
		return failed("enc_keys", err, qg_client_why(a));
	const char *id = mine->key[0].id;
	err = qg_client_dec_keys(b, argv[6], &id, 1, &theirs);
	if (err != QG_OK)
		return failed("dec_keys", err, qg_client_why(b));

	int same = mine->key[0].len == theirs->key[0].len &&
		   memcmp(mine->key[0].bytes, theirs->key[0].bytes, mine->key[0].len) == 0;
	printf("%s: %s\n", id, same ? "the same key at both ends" : "DIFFERENT KEYS");

	qg_client_keys_free(&mine);
	qg_client_keys_free(&theirs);
	qg_client_close(&a);
	qg_client_close(&b);
	return same ? 0 : 1;
}
