-- SPDX-License-Identifier: Apache-2.0
-- Key streams of applications (ETSI GS QKD 004). End 0 is always here, end 1
-- at the KME `kme`, or here too where that is empty.
CREATE TABLE app_stream (
	row INTEGER PRIMARY KEY AUTOINCREMENT,
	ksid BLOB NOT NULL UNIQUE CHECK (length(ksid) = 16),
	kme TEXT NOT NULL,
	owner INTEGER NOT NULL CHECK (owner IN (0, 1)),
	uri_0 TEXT NOT NULL,
	uri_1 TEXT NOT NULL,
	sae_0 TEXT NOT NULL,
	sae_1 TEXT NOT NULL,
	chunk_size INTEGER NOT NULL CHECK (chunk_size > 0),
	max_bps INTEGER NOT NULL,
	min_bps INTEGER NOT NULL,
	jitter_bps INTEGER NOT NULL,
	priority INTEGER NOT NULL,
	timeout_ms INTEGER NOT NULL,
	ttl_s INTEGER NOT NULL,
	metadata INTEGER NOT NULL CHECK (metadata IN (0, 1)),
	state_0 INTEGER NOT NULL CHECK (state_0 BETWEEN 0 AND 2),
	state_1 INTEGER NOT NULL CHECK (state_1 BETWEEN 0 AND 2),
	sequence_0 INTEGER NOT NULL,
	sequence_1 INTEGER NOT NULL,
	next_index INTEGER NOT NULL,
	serial INTEGER NOT NULL,
	tell INTEGER NOT NULL CHECK (tell IN (0, 1)),
	used_ms INTEGER NOT NULL
) STRICT;

-- Runs of its chunks. `message` is the new_app_keys that the other KME has not
-- answered yet, or at the far end its answer; `tag` the MAC of that message.
CREATE TABLE app_block (
	row INTEGER PRIMARY KEY,
	stream_row INTEGER NOT NULL REFERENCES app_stream (row) ON DELETE CASCADE,
	first INTEGER NOT NULL,
	count INTEGER NOT NULL CHECK (count > 0),
	serial INTEGER NOT NULL,
	hops INTEGER NOT NULL,
	held INTEGER NOT NULL CHECK (held IN (0, 1)),
	since_ms INTEGER NOT NULL,
	tag BLOB CHECK (length(tag) = 16),
	message BLOB,
	sealed BLOB NOT NULL,
	UNIQUE (stream_row, first)
) STRICT;
