-- SPDX-License-Identifier: Apache-2.0
-- Keys between networks, SOUNDNESS 18: what is passed on with a key, and the
-- peer that is to be told what became of its void.
ALTER TABLE transfer ADD COLUMN extension TEXT NOT NULL DEFAULT '';
ALTER TABLE transfer ADD COLUMN optional TEXT NOT NULL DEFAULT '';
ALTER TABLE transfer ADD COLUMN owed TEXT NOT NULL DEFAULT '';

-- What a peer is to be told until it answers: of keys of one initiator and one
-- set of targets (a line each).
CREATE TABLE telling (
	row INTEGER PRIMARY KEY AUTOINCREMENT,
	peer TEXT NOT NULL,
	what INTEGER NOT NULL CHECK (what BETWEEN 0 AND 5),
	initiator TEXT NOT NULL,
	targets TEXT NOT NULL,
	ids BLOB NOT NULL CHECK (length(ids) > 0 AND length(ids) % 16 = 0),
	until_ms INTEGER NOT NULL
) STRICT;
