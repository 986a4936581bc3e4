-- The phase `ramping`, and how a rollout stands to its ramp.
ALTER TABLE rollouts
    DROP CONSTRAINT rollouts_phase_check,
    ADD CONSTRAINT rollouts_phase_check CHECK (phase IN ('manual', 'ramping', 'paused', 'rolled_back', 'promoted')),
    ADD COLUMN ramp TEXT; -- JSON, if the flag's file has a ramp
