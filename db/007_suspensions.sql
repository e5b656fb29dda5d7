-- SPDX-License-Identifier: Apache-2.0
-- Who gets no key until an operator resumes it: an SAE or a peer (`other` is ''), or
-- two SAEs with one another.
CREATE TABLE suspension (
	kind TEXT NOT NULL CHECK (kind IN ('sae', 'pair', 'peer')),
	name TEXT NOT NULL,
	other TEXT NOT NULL CHECK ((other = '') = (kind <> 'pair')),
	PRIMARY KEY (kind, name, other)
) STRICT, WITHOUT ROWID;
