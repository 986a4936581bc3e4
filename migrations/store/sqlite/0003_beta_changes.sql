-- What people changed in the beta list of a flag, over what its files say: JSON, one object for each user. It is part of the
-- rollout's state, so that it is replaced with the generation that it belongs to, never apart from it.
ALTER TABLE rollouts ADD COLUMN beta TEXT;
