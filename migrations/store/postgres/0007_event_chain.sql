-- Each event holds the hash of the one before and its own, so that a changed or missing one is noticed. Events from before
-- this migration have neither. Their numbers have no gaps, so Tidegate gives them itself.
ALTER TABLE events ALTER COLUMN id DROP IDENTITY;
ALTER TABLE events ADD COLUMN previous TEXT;
ALTER TABLE events ADD COLUMN hash TEXT;
