/* SPDX-License-Identifier: Apache-2.0 */
#include "store_internal.h"

const char *const qg_sql_texts[QG_SQL_COUNT] = {
	[QG_SQL_BEGIN] = "BEGIN IMMEDIATE",
	[QG_SQL_COMMIT] = "COMMIT",
	[QG_SQL_ROLLBACK] = "ROLLBACK",

	[QG_SQL_EPOCH_PUT] =
		"INSERT INTO epoch (stream, ksid, epoch, state, opener, chunk_size, segment_chunks, mark,"
		" seen_mark, next_segment, next_index, root_out, root_in, probe, probe_index, created_ms, end_ms)"
		" VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
	/* A mark never falls back, in whatever order changes come (SOUNDNESS 8, 9). */
	[QG_SQL_EPOCH_UPDATE] =
		"UPDATE epoch SET state = ?2, segment_chunks = ?3, mark = max(mark, ?4),"
		" seen_mark = max(seen_mark, ?5), next_segment = ?6, next_index = ?7, root_out = ?8,"
		" root_in = ?9, probe = ?10, probe_index = ?11, end_ms = ?12 WHERE row = ?1",
	[QG_SQL_EPOCH_MARK] = "UPDATE epoch SET mark = max(mark, ?2) WHERE row = ?1",
	[QG_SQL_EPOCH_DELETE] = "DELETE FROM epoch WHERE row = ?1",
	[QG_SQL_EPOCH_LOAD] =
		"SELECT row, stream, ksid, epoch, state, opener, chunk_size, segment_chunks, mark, seen_mark,"
		" next_segment, next_index, root_out, root_in, probe, probe_index, created_ms, end_ms"
		" FROM epoch ORDER BY row",

	[QG_SQL_SEGMENT_PUT] =
		"INSERT INTO segment (epoch_row, number, ours, use, state, first_index, count, root, tag,"
		" born_ms, ready_wall_ms, issue_s, fetch_s)"
		" VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
	[QG_SQL_SEGMENT_PUT_BLOB] = "INSERT INTO segment_blob (row, sealed, message) VALUES (?1, ?2, ?3)",
	[QG_SQL_SEGMENT_PUT_USED] = "INSERT INTO segment_used (row, used) VALUES (?1, ?2)",
	[QG_SQL_SEGMENT_CONFIRM] = "UPDATE segment SET state = 2, ready_wall_ms = ?2, hops = ?3"
				 " WHERE row = ?1 AND state = 1",
	[QG_SQL_SEGMENT_SENT] = "UPDATE segment SET born_ms = ?2 WHERE row = ?1 AND ours = 1",
	[QG_SQL_SEGMENT_USE] = "UPDATE segment_used SET used = ?3 WHERE row = ?1 AND used = ?2",
	[QG_SQL_SEGMENT_USED] = "SELECT used FROM segment_used WHERE row = ?1",
	[QG_SQL_SEGMENT_RESEAL] = "UPDATE segment_blob SET sealed = ?2 WHERE row = ?1",
	[QG_SQL_SEGMENT_DELETE] = "DELETE FROM segment WHERE row = ?1",
	[QG_SQL_SEGMENT_LOAD] =
		"SELECT s.row, s.epoch_row, s.number, s.ours, s.use, s.state, s.first_index, s.count, s.root,"
		" b.sealed, u.used, b.message, s.tag, s.born_ms, s.ready_wall_ms, s.issue_s, s.fetch_s,"
		" s.hops"
		" FROM segment s LEFT JOIN segment_blob b ON b.row = s.row"
		" LEFT JOIN segment_used u ON u.row = s.row ORDER BY s.epoch_row, s.number",

	[QG_SQL_TRANSFER_PUT] =
		"INSERT INTO transfer (initiator, key_id, state, origin, sealed, size_bytes, expiry_ms,"
		" extension, optional) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
	[QG_SQL_TRANSFER_STATE] = "UPDATE transfer SET state = ?3 WHERE row = ?1 AND state = ?2",
	[QG_SQL_TRANSFER_UNSEAL] = "UPDATE transfer SET sealed = NULL WHERE row = ?1",
	[QG_SQL_TRANSFER_DELETE] = "DELETE FROM transfer WHERE row = ?1",
	[QG_SQL_TRANSFER_OWE] = "UPDATE transfer SET owed = ?2 WHERE row = ?1",
	[QG_SQL_TRANSFER_LOAD] =
		"SELECT row, initiator, key_id, state, origin, sealed, size_bytes, expiry_ms, extension,"
		" optional, owed FROM transfer ORDER BY row",
	[QG_SQL_TARGET_PUT] =
		"INSERT INTO target (transfer_row, sae, state, home) VALUES (?1, ?2, ?3, ?4)",
	[QG_SQL_TARGET_STATE] =
		"UPDATE target SET state = ?4 WHERE transfer_row = ?1 AND sae = ?2 AND state = ?3",
	[QG_SQL_TARGET_LOAD] = "SELECT sae, state, home FROM target WHERE transfer_row = ?1 ORDER BY sae",

	[QG_SQL_TELLING_PUT] =
		"INSERT INTO telling (peer, what, initiator, targets, ids, until_ms)"
		" VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
	[QG_SQL_TELLING_DELETE] = "DELETE FROM telling WHERE row = ?1",
	[QG_SQL_TELLING_LOAD] =
		"SELECT row, peer, what, initiator, targets, ids, until_ms FROM telling ORDER BY row",

	[QG_SQL_NUMBER_PUT] =
		"INSERT INTO number (name, value) VALUES (?1, ?2)"
		" ON CONFLICT (name) DO UPDATE SET value = excluded.value",
	[QG_SQL_NUMBER_DELETE] = "DELETE FROM number WHERE name = ?1",
	[QG_SQL_NUMBER_GET] = "SELECT value FROM number WHERE name = ?1",

	[QG_SQL_APP_STREAM_PUT] =
		"INSERT OR REPLACE INTO app_stream (ksid, kme, owner, uri_0, uri_1, sae_0, sae_1, chunk_size, max_bps, min_bps,"
		" jitter_bps, priority, timeout_ms, ttl_s, metadata, state_0, state_1, sequence_0, sequence_1,"
		" next_index, serial, tell, used_ms)"
		" VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19,"
		" ?20, ?21, ?22, ?23)",
	[QG_SQL_APP_STREAM_UPDATE] =
		"UPDATE app_stream SET state_0 = ?2, state_1 = ?3, sequence_0 = max(sequence_0, ?4),"
		" sequence_1 = max(sequence_1, ?5), next_index = ?6, serial = max(serial, ?7),"
		" tell = ?8, used_ms = ?9 WHERE row = ?1",
	[QG_SQL_APP_STREAM_DELETE] = "DELETE FROM app_stream WHERE row = ?1",
	[QG_SQL_APP_STREAM_LOAD] =
		"SELECT row, ksid, kme, owner, uri_0, uri_1, sae_0, sae_1, chunk_size, max_bps, min_bps, jitter_bps,"
		" priority, timeout_ms, ttl_s, metadata, state_0, state_1, sequence_0, sequence_1, next_index,"
		" serial, tell, used_ms FROM app_stream ORDER BY row",
	[QG_SQL_APP_BLOCK_PUT] =
		"INSERT OR REPLACE INTO app_block (stream_row, first, count, serial, hops, held, since_ms, tag, message, sealed)"
		" VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
	[QG_SQL_APP_BLOCK_HELD] = "UPDATE app_block SET held = 1, since_ms = ?3, message = NULL"
				  " WHERE stream_row = ?1 AND first = ?2",
	[QG_SQL_APP_BLOCK_DELETE] = "DELETE FROM app_block WHERE stream_row = ?1 AND first = ?2",
	[QG_SQL_APP_BLOCK_LOAD] =
		"SELECT stream_row, first, count, serial, hops, held, since_ms, tag, message, sealed"
		" FROM app_block ORDER BY stream_row, first",

	[QG_SQL_ENTRY_PUT] = "INSERT INTO entry (list, name, text) VALUES (?1, ?2, ?3)",
	[QG_SQL_ENTRY_DELETE] = "DELETE FROM entry WHERE list = ?1 AND name = ?2",
	[QG_SQL_ENTRY_LOAD] = "SELECT list, name, text FROM entry ORDER BY row",
	[QG_SQL_SUSPENSION_PUT] = "INSERT OR REPLACE INTO suspension (kind, name, other) VALUES (?1, ?2, ?3)",
	[QG_SQL_SUSPENSION_DELETE] = "DELETE FROM suspension WHERE kind = ?1 AND name = ?2 AND other = ?3",
	[QG_SQL_SUSPENSION_LOAD] = "SELECT kind, name, other FROM suspension",
	[QG_SQL_WINDOW_PUT] =
		"INSERT OR REPLACE INTO pair_window (pair, began_ms, slot_ms, chunks) VALUES (?1, ?2, ?3, ?4)",
	[QG_SQL_WINDOWS_DELETE] = "DELETE FROM pair_window WHERE began_ms < ?1",
	[QG_SQL_WINDOW_LOAD] = "SELECT pair, began_ms, slot_ms, chunks FROM pair_window",
	[QG_SQL_ACCOUNT_ADD] =
		"INSERT INTO account (day, sae, other, requests, issued, issued_bits, fetched, fetched_bits,"
		" refused, limited) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"
		" ON CONFLICT (day, sae, other) DO UPDATE SET requests = requests + excluded.requests,"
		" issued = issued + excluded.issued, issued_bits = issued_bits + excluded.issued_bits,"
		" fetched = fetched + excluded.fetched, fetched_bits = fetched_bits + excluded.fetched_bits,"
		" refused = refused + excluded.refused, limited = limited + excluded.limited",
	[QG_SQL_ACCOUNTS_DELETE] = "DELETE FROM account WHERE day < ?1",
	[QG_SQL_ACCOUNT_LOAD] =
		"SELECT day, sae, other, requests, issued, issued_bits, fetched, fetched_bits, refused, limited"
		" FROM account WHERE day BETWEEN ?1 AND ?2 ORDER BY day, sae, other",
	[QG_SQL_LEVEL_PUT] = "INSERT OR REPLACE INTO level (rate, name, milli) VALUES (?1, ?2, ?3)",
	[QG_SQL_LEVELS_DELETE] = "DELETE FROM level",
	[QG_SQL_LEVEL_LOAD] = "SELECT rate, name, milli FROM level",
};
