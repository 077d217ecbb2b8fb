-- Where the history stands. One row.
CREATE TABLE head (
  id BIGINT PRIMARY KEY CHECK (id = 1),
  epoch TEXT COLLATE "C" NOT NULL,
  revision BIGINT NOT NULL,
  digest TEXT COLLATE "C" NOT NULL,
  entries BIGINT NOT NULL,
  hash TEXT COLLATE "C" NOT NULL
);

-- Rows as JSON objects, with the fields of the key file.
CREATE TABLE owners (id TEXT COLLATE "C" PRIMARY KEY, document TEXT COLLATE "C" NOT NULL);
CREATE TABLE keys (id TEXT COLLATE "C" PRIMARY KEY, document TEXT COLLATE "C" NOT NULL);

-- What each revision changed: a list of JSON objects, in order.
CREATE TABLE changes (
  revision BIGINT PRIMARY KEY,
  digest TEXT COLLATE "C" NOT NULL,
  at BIGINT NOT NULL,
  lines TEXT COLLATE "C" NOT NULL
);

-- The hash chain. `detail` stays as it was written: it was hashed so.
CREATE TABLE audit (
  seq BIGINT PRIMARY KEY,
  at BIGINT NOT NULL,
  actor TEXT COLLATE "C" NOT NULL,
  address TEXT COLLATE "C",
  action TEXT COLLATE "C" NOT NULL,
  subject TEXT COLLATE "C" NOT NULL,
  detail TEXT COLLATE "C" NOT NULL,
  revision BIGINT,
  hash TEXT COLLATE "C" NOT NULL
);
CREATE INDEX audit_by_actor ON audit (actor, seq);
CREATE INDEX audit_by_action ON audit (action, seq);
CREATE INDEX audit_by_subject ON audit (subject, seq);

CREATE TABLE operators (
  name TEXT COLLATE "C" PRIMARY KEY,
  role TEXT COLLATE "C" NOT NULL,
  password TEXT COLLATE "C",
  created_at BIGINT NOT NULL
);
CREATE TABLE tokens (
  id TEXT COLLATE "C" PRIMARY KEY,
  operator TEXT COLLATE "C" NOT NULL REFERENCES operators ON DELETE CASCADE,
  place BIGINT NOT NULL,
  name TEXT COLLATE "C" NOT NULL,
  digest TEXT COLLATE "C" NOT NULL UNIQUE,
  created_at BIGINT NOT NULL,
  expires_at BIGINT
);
CREATE INDEX tokens_by_operator ON tokens (operator, place);
CREATE TABLE sessions (
  digest TEXT COLLATE "C" PRIMARY KEY,
  operator TEXT COLLATE "C" NOT NULL REFERENCES operators ON DELETE CASCADE,
  csrf TEXT COLLATE "C" NOT NULL,
  created_at BIGINT NOT NULL,
  seen_at BIGINT NOT NULL
);
CREATE INDEX sessions_by_operator ON sessions (operator);
-- Browsers that an operator has signed in with.
CREATE TABLE devices (
  digest TEXT COLLATE "C" PRIMARY KEY,
  operator TEXT COLLATE "C" NOT NULL REFERENCES operators ON DELETE CASCADE,
  seen_at BIGINT NOT NULL
);
CREATE INDEX devices_by_operator ON devices (operator, seen_at);
CREATE TABLE setup (id BIGINT PRIMARY KEY CHECK (id = 1), digest TEXT COLLATE "C" NOT NULL);

-- What creates were asked with.
CREATE TABLE remembered (
  key TEXT COLLATE "C" PRIMARY KEY,
  request TEXT COLLATE "C" NOT NULL,
  made TEXT COLLATE "C" NOT NULL,
  at BIGINT NOT NULL
);

CREATE TABLE sidecars (
  instance TEXT COLLATE "C" PRIMARY KEY,
  address TEXT COLLATE "C",
  first_seen BIGINT NOT NULL,
  last_seen BIGINT NOT NULL,
  confirmed_at BIGINT NOT NULL,
  max_stale BIGINT NOT NULL,
  max_stale_write BIGINT NOT NULL,
  epoch TEXT NOT NULL,
  revision BIGINT NOT NULL,
  durable BIGINT NOT NULL,
  goodbye BIGINT NOT NULL
);
-- Who may speak for an instance, and the number of its last report of use. It outlives the sidecar's row, so that nobody
-- takes the place of one that was forgotten, and nothing is counted twice.
CREATE TABLE instances (
  instance TEXT COLLATE "C" PRIMARY KEY,
  bound TEXT NOT NULL,
  credential TEXT NOT NULL,
  seq BIGINT NOT NULL,
  day BIGINT NOT NULL
);

-- `mark` is the transaction that last wrote a row.
CREATE TABLE usage (
  key TEXT COLLATE "C" PRIMARY KEY,
  last_used_at BIGINT,
  last_ip TEXT COLLATE "C",
  allowed BIGINT NOT NULL,
  refused BIGINT NOT NULL,
  mark BIGINT NOT NULL
);
CREATE INDEX usage_by_mark ON usage (mark);
CREATE TABLE refusals (
  key TEXT COLLATE "C" NOT NULL,
  reason TEXT COLLATE "C" NOT NULL,
  at BIGINT NOT NULL,
  address TEXT COLLATE "C",
  count BIGINT NOT NULL,
  PRIMARY KEY (key, reason)
);
CREATE TABLE days (
  key TEXT COLLATE "C" NOT NULL,
  day BIGINT NOT NULL,
  allowed BIGINT NOT NULL,
  refused BIGINT NOT NULL,
  PRIMARY KEY (key, day)
);
CREATE INDEX days_by_day ON days (day);
