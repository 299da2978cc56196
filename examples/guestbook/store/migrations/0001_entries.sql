CREATE TABLE entries (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Chosen by whoever sends the entry: the same token twice is the same entry.
    token      text NOT NULL UNIQUE CHECK (length(token) BETWEEN 1 AND 64),
    name       text NOT NULL CHECK (length(name) BETWEEN 1 AND 60),
    message    text NOT NULL CHECK (length(message) BETWEEN 1 AND 1000),
    written_at timestamptz NOT NULL DEFAULT now()
);
