-- Where the history stands. One row.
CREATE TABLE head (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  epoch TEXT NOT NULL,
  revision INTEGER NOT NULL,
  digest TEXT NOT NULL,
  entries INTEGER NOT NULL,
  hash TEXT NOT NULL
) STRICT;

-- Rows as JSON objects, with the fields of the key file.
CREATE TABLE owners (id TEXT PRIMARY KEY, document TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE keys (id TEXT PRIMARY KEY, document TEXT NOT NULL) STRICT, WITHOUT ROWID;

-- What each revision changed: a list of JSON objects, in order.
CREATE TABLE changes (
  revision INTEGER PRIMARY KEY,
  digest TEXT NOT NULL,
  at INTEGER NOT NULL,
  lines TEXT NOT NULL
) STRICT;

-- The hash chain. `detail` stays as it was written: it was hashed so.
CREATE TABLE audit (
  seq INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  actor TEXT NOT NULL,
  address TEXT,
  action TEXT NOT NULL,
  subject TEXT NOT NULL,
  detail TEXT NOT NULL,
  revision INTEGER,
  hash TEXT NOT NULL
) STRICT;
CREATE INDEX audit_by_actor ON audit (actor, seq);
CREATE INDEX audit_by_action ON audit (action, seq);
CREATE INDEX audit_by_subject ON audit (subject, seq);

CREATE TABLE operators (
  name TEXT PRIMARY KEY,
  role TEXT NOT NULL,
  password TEXT,
  created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE tokens (
  id TEXT PRIMARY KEY,
  operator TEXT NOT NULL REFERENCES operators ON DELETE CASCADE,
  place INTEGER NOT NULL,
  name TEXT NOT NULL,
  digest TEXT NOT NULL UNIQUE,
  created_at INTEGER NOT NULL,
  expires_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX tokens_by_operator ON tokens (operator, place);
CREATE TABLE sessions (
  digest TEXT PRIMARY KEY,
  operator TEXT NOT NULL REFERENCES operators ON DELETE CASCADE,
  csrf TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  seen_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_operator ON sessions (operator);
-- Browsers that an operator has signed in with.
CREATE TABLE devices (
  digest TEXT PRIMARY KEY,
  operator TEXT NOT NULL REFERENCES operators ON DELETE CASCADE,
  seen_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX devices_by_operator ON devices (operator, seen_at);
CREATE TABLE setup (id INTEGER PRIMARY KEY CHECK (id = 1), digest TEXT NOT NULL) STRICT;

-- What creates were asked with.
CREATE TABLE remembered (
  key TEXT PRIMARY KEY,
  request TEXT NOT NULL,
  made TEXT NOT NULL,
  at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE sidecars (
  instance TEXT PRIMARY KEY,
  address TEXT,
  first_seen INTEGER NOT NULL,
  last_seen INTEGER NOT NULL,
  confirmed_at INTEGER NOT NULL,
  max_stale INTEGER NOT NULL,
  max_stale_write INTEGER NOT NULL,
  epoch TEXT NOT NULL,
  revision INTEGER NOT NULL,
  durable INTEGER NOT NULL,
  goodbye INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- Who may speak for an instance, and the number of its last report of use. It outlives the sidecar's row, so that nobody
-- takes the place of one that was forgotten, and nothing is counted twice.
CREATE TABLE instances (
  instance TEXT PRIMARY KEY,
  bound TEXT NOT NULL,
  credential TEXT NOT NULL,
  seq INTEGER NOT NULL,
  day INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- `mark` says when a row was last written: it only grows.
CREATE TABLE usage (
  key TEXT PRIMARY KEY,
  last_used_at INTEGER,
  last_ip TEXT,
  allowed INTEGER NOT NULL,
  refused INTEGER NOT NULL,
  mark INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_by_mark ON usage (mark);
CREATE TABLE refusals (
  key TEXT NOT NULL,
  reason TEXT NOT NULL,
  at INTEGER NOT NULL,
  address TEXT,
  count INTEGER NOT NULL,
  PRIMARY KEY (key, reason)
) STRICT, WITHOUT ROWID;
CREATE TABLE days (
  key TEXT NOT NULL,
  day INTEGER NOT NULL,
  allowed INTEGER NOT NULL,
  refused INTEGER NOT NULL,
  PRIMARY KEY (key, day)
) STRICT, WITHOUT ROWID;
CREATE INDEX days_by_day ON days (day);
CREATE TABLE marks (id INTEGER PRIMARY KEY CHECK (id = 1), newest INTEGER NOT NULL) STRICT;
INSERT INTO marks (id, newest) VALUES (1, 0);
