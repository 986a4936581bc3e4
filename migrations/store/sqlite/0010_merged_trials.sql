-- How far a trial has come: the last parcel of evidence in it, where gateways share a store, and the generation that it began with.
ALTER TABLE trials ADD COLUMN through INTEGER NOT NULL DEFAULT 0;
ALTER TABLE trials ADD COLUMN since INTEGER NOT NULL DEFAULT 0;
