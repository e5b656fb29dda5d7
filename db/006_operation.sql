-- SPDX-License-Identifier: Apache-2.0
-- Entries of `saes` and `policy` that operators made at run time, as JSON. Of
-- rules the older goes first.
CREATE TABLE entry (
	row INTEGER PRIMARY KEY AUTOINCREMENT,
	list TEXT NOT NULL CHECK (list IN ('saes', 'policy')),
	name TEXT NOT NULL,
	text TEXT NOT NULL,
	UNIQUE (list, name)
) STRICT;

-- Who asked for keys with whom ("": nobody that is known), by day (since
-- 1970-01-01, UTC): for accounting.
CREATE TABLE account (
	day INTEGER NOT NULL,
	sae TEXT NOT NULL,
	other TEXT NOT NULL,
	requests INTEGER NOT NULL,
	issued INTEGER NOT NULL,
	issued_bits INTEGER NOT NULL,
	fetched INTEGER NOT NULL,
	fetched_bits INTEGER NOT NULL,
	refused INTEGER NOT NULL,
	limited INTEGER NOT NULL,
	PRIMARY KEY (day, sae, other)
) STRICT, WITHOUT ROWID;

-- What was left of rates at an orderly stop: thousandths of a token.
CREATE TABLE level (
	rate TEXT NOT NULL,
	name TEXT NOT NULL,
	milli INTEGER NOT NULL,
	PRIMARY KEY (rate, name)
) STRICT, WITHOUT ROWID;
