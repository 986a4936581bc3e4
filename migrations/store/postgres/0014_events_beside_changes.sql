-- Each change of a rollout has one event. Asking for a change that waits for a second operator, and withdrawing it, are events of
-- the flag too, and change nothing.
ALTER TABLE events DROP CONSTRAINT events_flag_generation_key;
CREATE UNIQUE INDEX events_one_for_each_change ON events (flag, generation) WHERE action <> 'ask' AND action <> 'withdraw';
CREATE INDEX events_of_a_flag ON events (flag, id);
