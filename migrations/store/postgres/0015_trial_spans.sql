-- Where a trial's evidence comes from, for people: the canary's shares, the first and the last outcome, ids of requests.
ALTER TABLE trials ADD COLUMN span TEXT NOT NULL DEFAULT '{}'; -- JSON
