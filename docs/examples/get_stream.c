/* SPDX-License-Identifier: Apache-2.0 */
/* One end of a key stream, with libqkdgate:
 *   cc get_stream.c $(pkg-config --cflags --libs libqkdgate)
 *   ./a.out HOST PORT SERVER_NAME CERT KEY CA MY_URI OTHER_URI         # says the KSID
 *   ./a.out HOST PORT SERVER_NAME CERT KEY CA MY_URI OTHER_URI KSID    # at the other end, with it
 * Writes the KSID and then four chunks in hexadecimal, which are the same at both ends. */
#include <stdio.h>
#include <stdlib.h>
#include <threads.h>

#include <qkdgate/client.h>

#define CHUNKS 4
#define CHUNK_SIZE 32

/* Both ends have to be there before either gets a chunk. */
static qg_err
get(qg_client_stream *s, uint32_t index, uint8_t *key, qg_client_chunk *chunk)
{
	qg_err err;
	while ((err = qg_client_stream_get(s, index, key, CHUNK_SIZE, chunk)) == QG_E_AGAIN ||
	       (err == QG_E_STATE && qg_client_stream_status(s) == 3 /* the peer is yet to come */))
		(void)thrd_sleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
	return err;
}

static int
failed(const char *what, qg_err err, unsigned status)
{
	fprintf(stderr, "%s: %s, status %u\n", what, qg_err_text(err), status);
	return 1;
}

int
main(int argc, char **argv)
{
	qg_client_stream *s = NULL;
	unsigned status = 0;
	if (argc != 9 && argc != 10)
		return 2;
	const qg_client_files files = {.certificate = argv[4], .key = argv[5], .ca = argv[6]};
	const qg_client_stream_options options = {
		.host = argv[1],
		.port = (unsigned)strtoul(argv[2], NULL, 10),
		.server_name = argv[3],
		.profile = QG_CLIENT_BIN_B,
		.files = &files,
		.source_uri = argv[7],
		.destination_uri = argv[8],
		.ksid = argc > 9 ? argv[9] : NULL,
		.chunk_size = CHUNK_SIZE,
		.timeout_ms = 30000,
	};
	qg_err err = qg_client_stream_open(&options, &s, &status, NULL);
	if (err != QG_OK)
		return failed("open", err, status);
	printf("KSID %s\n", qg_client_stream_ksid(s));
	fflush(stdout);
	for (uint32_t i = 0; i < CHUNKS && err == QG_OK; i++) {
		uint8_t key[CHUNK_SIZE];
		qg_client_chunk chunk;
		err = get(s, i, key, &chunk);
		for (size_t k = 0; err == QG_OK && k < chunk.len; k++)
			printf("%02x%s", key[k], k + 1 < chunk.len ? "" : "\n");
	}
	status = qg_client_stream_status(s);
	if (err != QG_OK) {
		qg_client_stream_leave(&s);
		return failed("get", err, status);
	}
	err = qg_client_stream_close(&s);
	return err == QG_OK ? 0 : failed("close", err, 0);
}
