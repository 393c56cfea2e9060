//! What arrives, and what it starts.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::rows::{self, Json};
use crate::model::{Message, MessageId, Run, RunId, Task, TaskInput, TaskState, Timestamp};
use crate::store::{Admitted, Intake, Lease, NewRun, Result, Tick};

/// Bytes of payload in it: what it takes to write.
pub fn size(intake: &Intake) -> usize {
    let message = intake.message.iter().map(|message| message.data.len() + message.body.as_ref().map_or(0, Vec::len));
    let states = intake.runs.iter().flat_map(|run| &run.tasks).map(|task| match &task.input {
        TaskInput::State(state) => state.len(),
        _ => 0,
    });
    message.chain(states).sum()
}

pub fn admit(connection: &Connection, intake: &Intake) -> Result<Admitted> {
    if let Some(tick) = &intake.tick {
        if !advance(connection, tick)? {
            return Ok(Admitted::Stale);
        }
        if tick.alone && any_open_run(connection, &intake.runs)? {
            return Ok(Admitted::Overlap);
        }
    }
    if let Some(message) = &intake.message
        && !insert_message(connection, message, !intake.runs.is_empty())?
    {
        return Ok(duplicate(connection, message)?);
    }
    for run in &intake.runs {
        insert_run(connection, run, intake.lease.as_ref())?;
        if intake.message.is_none() {
            use_message(connection, &run.run)?;
        }
    }
    Ok(Admitted::New)
}

/// False: the trigger has fired for this time, or a later one, before.
fn advance(connection: &Connection, tick: &Tick) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO ticks (trigger_name, scheduled_at) VALUES (?1, ?2)
         ON CONFLICT DO UPDATE SET scheduled_at = excluded.scheduled_at WHERE scheduled_at < excluded.scheduled_at",
    )?;
    Ok(statement.execute(params![tick.trigger, tick.scheduled_at])? > 0)
}

pub fn last_tick(connection: &Connection, trigger: &str) -> rusqlite::Result<Option<Timestamp>> {
    let mut statement = connection.prepare_cached("SELECT scheduled_at FROM ticks WHERE trigger_name = ?1")?;
    statement.query_row([trigger], |row| row.get(0)).optional()
}

pub fn set_last_tick(connection: &Connection, trigger: &str, at: Timestamp) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO ticks (trigger_name, scheduled_at) VALUES (?1, ?2)
         ON CONFLICT DO UPDATE SET scheduled_at = excluded.scheduled_at",
    )?;
    statement.execute(params![trigger, at]).map(drop)
}

fn any_open_run(connection: &Connection, runs: &[NewRun]) -> rusqlite::Result<bool> {
    let mut statement = connection
        .prepare_cached("SELECT 1 FROM runs WHERE workflow = ?1 AND state IN ('pending', 'running') LIMIT 1")?;
    for new in runs {
        if statement.exists([&new.run.workflow])? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// False: the topic has this message already.
fn insert_message(connection: &Connection, message: &Message, in_use: bool) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO messages (id, topic, received_at, deliver_at, dedupe_key, in_use, request, data, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING",
    )?;
    let inserted = statement.execute(params![
        message.id,
        message.topic,
        message.received_at,
        message.deliver_at,
        message.dedupe_key,
        in_use,
        Json(&message.request),
        message.data,
        message.body,
    ])?;
    if inserted == 0 {
        return Ok(false);
    }
    let mut count = connection.prepare_cached(
        "INSERT INTO topics (topic, messages, last_received) VALUES (?1, 1, ?2) ON CONFLICT DO UPDATE
         SET messages = messages + 1, last_received = max(last_received, excluded.last_received)",
    )?;
    count.execute(params![message.topic, message.received_at])?;
    Ok(true)
}

fn duplicate(connection: &Connection, message: &Message) -> rusqlite::Result<Admitted> {
    let mut first = connection.prepare_cached(
        "SELECT id FROM messages WHERE id = ?1
         UNION ALL SELECT id FROM messages WHERE topic = ?2 AND dedupe_key = ?3 LIMIT 1",
    )?;
    let first: MessageId = first.query_row(params![message.id, message.topic, message.dedupe_key], |row| row.get(0))?;
    let mut runs = connection.prepare_cached("SELECT id, workflow FROM runs WHERE message = ?1 ORDER BY id")?;
    let runs = runs.query_map([first], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(Admitted::Duplicate { message: first, runs: runs.collect::<rusqlite::Result<Vec<(RunId, String)>>>()? })
}

fn insert_run(connection: &Connection, NewRun { run, tasks }: &NewRun, lease: Option<&Lease>) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO runs (id, workflow, version, trigger_name, message, retry_of, state, priority, open_tasks, \
         created_at, started_at, finished_at, traceparent, failure)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )?;
    statement.execute(params![
        run.id,
        run.workflow,
        run.version,
        run.trigger,
        run.message,
        run.retry_of,
        run.state,
        run.priority,
        rows::count(open(tasks)),
        run.created_at,
        run.started_at,
        run.finished_at,
        run.traceparent,
        run.failure.as_ref().map(Json),
    ])?;
    insert_tasks(connection, tasks, lease)
}

/// Marks the message that was kept before and now starts a run.
fn use_message(connection: &Connection, run: &Run) -> rusqlite::Result<()> {
    let Some(message) = run.message else { return Ok(()) };
    let mut mark = connection.prepare_cached("UPDATE messages SET in_use = 1 WHERE id = ?1 AND in_use = 0")?;
    mark.execute([message]).map(drop)
}

/// How many of the tasks have not ended.
pub fn open(tasks: &[Task]) -> usize {
    tasks.iter().filter(|task| !task.state.is_final()).count()
}

/// `lease` is of those that are running already.
pub fn insert_tasks(connection: &Connection, tasks: &[Task], lease: Option<&Lease>) -> rusqlite::Result<()> {
    for task in tasks {
        insert_task(connection, task, lease.filter(|_| task.state == TaskState::Running))?;
    }
    Ok(())
}

fn insert_task(connection: &Connection, task: &Task, lease: Option<&Lease>) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO tasks (id, run, workflow, step, state, run_at, priority, attempts, input, input_attempt, created_at, \
         owner, lease_started, lease_until)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )?;
    let attempt = if let TaskInput::Output(attempt) = task.input { Some(attempt) } else { None };
    statement.execute(params![
        task.id,
        task.run,
        task.workflow,
        task.step,
        task.state,
        task.run_at,
        task.priority,
        task.attempts,
        rows::input_kind(&task.input),
        attempt,
        task.created_at,
        lease.map(|lease| &lease.owner),
        lease.map(|lease| lease.started),
        lease.map(|lease| lease.until),
    ])?;
    if let TaskInput::State(state) = &task.input {
        let mut statement = connection.prepare_cached("INSERT INTO task_states (task, state) VALUES (?1, ?2)")?;
        statement.execute(params![task.id, state])?;
    }
    Ok(())
}
