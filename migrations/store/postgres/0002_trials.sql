-- The evidence against the canary of every flag on trial, so that a restart does not begin it anew: that would add up the
-- probabilities of a false rollback.
CREATE TABLE trials (
    flag  TEXT NOT NULL PRIMARY KEY,
    basis TEXT NOT NULL, -- what is on trial and by which guard; the evidence of another is not taken up
    state TEXT NOT NULL  -- JSON: the judge's numbers
);
