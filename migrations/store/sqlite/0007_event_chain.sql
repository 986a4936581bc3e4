-- Each event holds the hash of the one before and its own, so that a changed or missing one is noticed. Events from before
-- this migration have neither.
ALTER TABLE events ADD COLUMN previous TEXT;
ALTER TABLE events ADD COLUMN hash TEXT;
