-- Ids are UUIDs of version 7 as 16 bytes; times are microseconds since 1970; booleans are 0 and 1.
--
-- Small rows are clustered by their id. Texts of any length (payloads, outputs, logs) are in tables of their own with an
-- integer key, or the last columns of one, so that what is read and changed often stays in few pages. Partial indexes
-- hold only what is looked for: the queue's index has the waiting tasks, however many are done.

-- Versions of workflows. Never deleted: runs refer to them.
CREATE TABLE workflows (
  version INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  -- In the project that is served now.
  current INTEGER NOT NULL,
  published_at INTEGER NOT NULL,
  definition TEXT NOT NULL
) STRICT;
CREATE INDEX workflows_by_name ON workflows (name, version);

CREATE TABLE messages (
  seq INTEGER PRIMARY KEY,
  id BLOB NOT NULL UNIQUE,
  topic TEXT NOT NULL,
  received_at INTEGER NOT NULL,
  deliver_at INTEGER,
  dedupe_key TEXT,
  -- Some run refers to it.
  in_use INTEGER NOT NULL,
  request TEXT NOT NULL,
  data TEXT NOT NULL,
  body BLOB
) STRICT;
CREATE INDEX messages_by_topic ON messages (topic, id);
CREATE UNIQUE INDEX messages_by_dedupe_key ON messages (topic, dedupe_key) WHERE dedupe_key IS NOT NULL;
CREATE INDEX messages_unused ON messages (received_at) WHERE in_use = 0;

-- What would otherwise be counted over all messages.
CREATE TABLE topics (
  topic TEXT PRIMARY KEY,
  messages INTEGER NOT NULL,
  last_received INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE runs (
  id BLOB PRIMARY KEY,
  workflow TEXT NOT NULL,
  version INTEGER NOT NULL,
  trigger_name TEXT,
  message BLOB,
  retry_of BLOB,
  state TEXT NOT NULL,
  priority INTEGER NOT NULL,
  -- Tasks that have not ended. The run ends when this becomes 0.
  open_tasks INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  started_at INTEGER,
  finished_at INTEGER,
  traceparent TEXT,
  failure TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX runs_by_state ON runs (state, id);
CREATE INDEX runs_by_workflow ON runs (workflow, state, id);
CREATE INDEX runs_by_message ON runs (message, id) WHERE message IS NOT NULL;
CREATE INDEX runs_by_origin ON runs (retry_of) WHERE retry_of IS NOT NULL;
CREATE INDEX runs_ended ON runs (state, finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE tasks (
  id BLOB PRIMARY KEY,
  run BLOB NOT NULL REFERENCES runs ON DELETE CASCADE,
  workflow TEXT NOT NULL,
  step TEXT NOT NULL,
  state TEXT NOT NULL,
  run_at INTEGER NOT NULL,
  priority INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  -- Of the attempts, those before the task was last sent on its way again by hand.
  forgiven INTEGER NOT NULL DEFAULT 0,
  -- Who works on it. Stays when a running task is cancelled, until its attempt is in.
  owner TEXT,
  lease_started INTEGER,
  lease_until INTEGER,
  -- 'message', 'output', 'cursor' or 'state'; the state itself is in task_states.
  input TEXT NOT NULL,
  input_attempt BLOB,
  created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX tasks_by_run ON tasks (run, id);
CREATE INDEX tasks_waiting ON tasks (workflow, priority, run_at) WHERE state IN ('scheduled', 'queued', 'retrying');
CREATE INDEX tasks_running ON tasks (lease_until) WHERE state = 'running';
CREATE INDEX tasks_dead ON tasks (workflow, id) WHERE state = 'dead';
CREATE INDEX tasks_not_completed ON tasks (state, id) WHERE state <> 'completed';

-- Initial states that were given with the task.
CREATE TABLE task_states (
  seq INTEGER PRIMARY KEY,
  task BLOB NOT NULL UNIQUE REFERENCES tasks ON DELETE CASCADE,
  state TEXT NOT NULL
) STRICT;

CREATE TABLE attempts (
  seq INTEGER PRIMARY KEY,
  id BLOB NOT NULL UNIQUE,
  task BLOB NOT NULL REFERENCES tasks ON DELETE CASCADE,
  number INTEGER NOT NULL,
  started_at INTEGER NOT NULL,
  finished_at INTEGER NOT NULL,
  outcome TEXT NOT NULL,
  cpu_us INTEGER NOT NULL,
  heap INTEGER NOT NULL,
  buffers INTEGER NOT NULL,
  failure TEXT,
  UNIQUE (task, number)
) STRICT;

CREATE TABLE outputs (
  attempt INTEGER PRIMARY KEY REFERENCES attempts ON DELETE CASCADE,
  output TEXT NOT NULL
) STRICT;

CREATE TABLE logs (
  attempt INTEGER PRIMARY KEY REFERENCES attempts ON DELETE CASCADE,
  finished_at INTEGER NOT NULL,
  log TEXT NOT NULL
) STRICT;
CREATE INDEX logs_by_time ON logs (finished_at);

-- What a step left at its last success.
CREATE TABLE cursors (
  seq INTEGER PRIMARY KEY,
  workflow TEXT NOT NULL,
  step TEXT NOT NULL,
  output TEXT NOT NULL,
  UNIQUE (workflow, step)
) STRICT;

-- When each cron trigger fired last.
CREATE TABLE ticks (
  trigger_name TEXT PRIMARY KEY,
  scheduled_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE credentials (
  name TEXT PRIMARY KEY,
  sealed BLOB NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  hash BLOB NOT NULL UNIQUE,
  scopes TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  revoked_at INTEGER
) STRICT, WITHOUT ROWID;

-- Written to find out whether writing works.
CREATE TABLE probe (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  ballast BLOB NOT NULL
) STRICT;
INSERT INTO probe VALUES (1, x'');
