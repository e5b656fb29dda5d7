-- SPDX-License-Identifier: Apache-2.0
-- Trusted nodes that the key of a segment of ours passed on its way.
ALTER TABLE segment ADD COLUMN hops INTEGER NOT NULL DEFAULT 0;
