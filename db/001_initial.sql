-- SPDX-License-Identifier: Apache-2.0
-- The gateway's memory. Times: *_wall_ms and created_ms are Unix time, every
-- other *_ms is the clock of lifetimes. Whatever holds key is sealed before it
-- comes here. Row numbers are never given twice, so that what comes late for a
-- row that is gone meets no other.

-- One epoch of a stream, SOUNDNESS 1.
CREATE TABLE epoch (
	row INTEGER PRIMARY KEY AUTOINCREMENT,
	stream TEXT NOT NULL,
	ksid BLOB NOT NULL CHECK (length(ksid) = 16),
	epoch BLOB NOT NULL CHECK (length(epoch) = 16),
	state INTEGER NOT NULL CHECK (state BETWEEN 1 AND 3),
	opener INTEGER NOT NULL CHECK (opener IN (0, 1)),
	chunk_size INTEGER NOT NULL CHECK (chunk_size > 0),
	segment_chunks INTEGER NOT NULL CHECK (segment_chunks > 0),
	mark INTEGER NOT NULL,
	seen_mark INTEGER NOT NULL,
	next_segment INTEGER NOT NULL,
	next_index INTEGER NOT NULL,
	root_out BLOB,
	root_in BLOB,
	probe BLOB CHECK (length(probe) = 16),
	probe_index INTEGER NOT NULL,
	created_ms INTEGER NOT NULL,
	end_ms INTEGER NOT NULL,
	UNIQUE (stream, ksid, epoch)
) STRICT;

-- What is known of a segment. Its key and its bitmap stand apart: a change
-- here or of the bitmap must not rewrite pages of key.
CREATE TABLE segment (
	row INTEGER PRIMARY KEY AUTOINCREMENT,
	epoch_row INTEGER NOT NULL REFERENCES epoch (row) ON DELETE CASCADE,
	number INTEGER NOT NULL,
	ours INTEGER NOT NULL CHECK (ours IN (0, 1)),
	use INTEGER NOT NULL,
	state INTEGER NOT NULL CHECK (state BETWEEN 1 AND 2),
	first_index INTEGER NOT NULL,
	count INTEGER NOT NULL CHECK (count > 0),
	root INTEGER NOT NULL CHECK (root IN (0, 1)),
	tag BLOB NOT NULL CHECK (length(tag) = 16),
	born_ms INTEGER NOT NULL,
	ready_wall_ms INTEGER NOT NULL,
	issue_s INTEGER NOT NULL,
	fetch_s INTEGER NOT NULL,
	UNIQUE (epoch_row, number)
) STRICT;

CREATE TABLE segment_blob (
	row INTEGER PRIMARY KEY REFERENCES segment (row) ON DELETE CASCADE,
	sealed BLOB,
	message BLOB
) STRICT;

-- Bit i set: chunk i is consumed, issued or reserved. Decides alone
-- (SOUNDNESS 12), and is all that a delivery changes.
CREATE TABLE segment_used (
	row INTEGER PRIMARY KEY REFERENCES segment (row) ON DELETE CASCADE,
	used BLOB NOT NULL
) STRICT;

-- Keys with an ID of their own, SOUNDNESS 14 and 18.
CREATE TABLE transfer (
	row INTEGER PRIMARY KEY AUTOINCREMENT,
	initiator TEXT NOT NULL,
	key_id BLOB NOT NULL CHECK (length(key_id) = 16),
	state INTEGER NOT NULL CHECK (state BETWEEN 1 AND 8),
	origin TEXT NOT NULL,
	sealed BLOB,
	size_bytes INTEGER NOT NULL CHECK (size_bytes > 0),
	expiry_ms INTEGER NOT NULL,
	UNIQUE (initiator, key_id)
) STRICT;

CREATE TABLE target (
	transfer_row INTEGER NOT NULL REFERENCES transfer (row) ON DELETE CASCADE,
	sae TEXT NOT NULL,
	state INTEGER NOT NULL CHECK (state BETWEEN 1 AND 4),
	PRIMARY KEY (transfer_row, sae)
) STRICT, WITHOUT ROWID;

-- Counters and checkpoints of clocks.
CREATE TABLE number (
	name TEXT PRIMARY KEY,
	value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
