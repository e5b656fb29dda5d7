-- SPDX-License-Identifier: Apache-2.0
-- Chunks issued to pairs within the time that limits.pair_chunks looks at, by slots of
-- time, the newest first. `pair` is a keyed hash of the two.
CREATE TABLE pair_window (
	pair BLOB PRIMARY KEY NOT NULL,
	began_ms INTEGER NOT NULL,
	slot_ms INTEGER NOT NULL CHECK (slot_ms > 0),
	chunks BLOB NOT NULL
) STRICT, WITHOUT ROWID;
