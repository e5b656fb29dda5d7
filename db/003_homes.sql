-- SPDX-License-Identifier: Apache-2.0
-- The KME that keeps a transferred key for this target; empty: this node.
ALTER TABLE target ADD COLUMN home TEXT NOT NULL DEFAULT '';
